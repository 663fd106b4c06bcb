package vm

import (
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// notZero are the numbers of a spec whose 0 would mean the default, because a
// field that nobody gave is 0, too: whoever writes 0 wants something else.
var notZero = map[string]map[string]string{
	"":           {"cpus": "1", "memory": DefaultMemory.String()},
	"protection": {"interval_seconds": number(defaultInterval)},
	"restart":    {"attempts": number(defaultAttempts), "window_seconds": number(defaultWindow), "backoff_seconds": number(defaultBackoff)},
	"recovery":   {"attempts": number(defaultStarts), "backoff_seconds": number(defaultStartBackoff), "settle_seconds": number(defaultSettle)},
}

func number(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }

// zeroes lists the zeroes of a spec, or of a change of one, that cannot be meant.
func zeroes(data []byte) (problems []string) {
	var document yaml.Node
	if yaml.Unmarshal(data, &document) != nil || len(document.Content) != 1 {
		return nil // the decoder says what is wrong
	}
	top := document.Content[0]
	for section, fields := range notZero {
		mapping, prefix := top, ""
		if section != "" {
			mapping, prefix = under(top, section), section+" "
		}
		for name, otherwise := range fields {
			if value := under(mapping, name); isZero(value) {
				problems = append(problems, fmt.Sprintf("line %d: %s%s: use more than 0; %s is the default", value.Line, prefix, name, otherwise))
			}
		}
	}
	if disks := under(top, "disks"); disks != nil {
		for _, d := range disks.Content {
			if value := under(d, "size"); isZero(value) {
				problems = append(problems, fmt.Sprintf("line %d: a disk's size: use more than 0; leave it out for that of its image", value.Line))
			}
		}
	}
	slices.Sort(problems)
	return problems
}

// under is the value of a mapping's key; nil: there is none.
func under(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// isZero says whether a value is a number, or a size, of nothing.
func isZero(value *yaml.Node) bool {
	if value == nil || value.Kind != yaml.ScalarNode {
		return false
	}
	if n, err := strconv.ParseFloat(value.Value, 64); err == nil {
		return n == 0
	}
	size, err := ParseSize(value.Value)
	return err == nil && size == 0
}
