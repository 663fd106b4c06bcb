package vm

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"go.yaml.in/yaml/v3"
)

// ChangeSpec applies a change, a spec in YAML or JSON that has only the fields
// to change, to a spec. Lists are replaced whole. The result still wants
// Defaults and Validate.
func ChangeSpec(s Spec, change []byte) (Spec, error) {
	if len(change) > maxSpec {
		return Spec{}, &SpecError{Name: s.Name, Problems: []string{"the change is too large"}}
	}
	s.Disks, s.NICs = slices.Clone(s.Disks), slices.Clone(s.NICs)
	for _, b := range []**bool{&s.PVPanic, &s.RNG, &s.GuestAgent, &s.Standby} {
		if *b != nil { // the decoder would write into the spec that is changed
			value := **b
			*b = &value
		}
	}
	var fields map[string]yaml.Node
	if err := yaml.Unmarshal(change, &fields); err == nil {
		// The decoder would write into the list that is there.
		if _, ok := fields["disks"]; ok {
			s.Disks = nil
		}
		if _, ok := fields["nics"]; ok {
			s.NICs = nil
		}
		if has(fields["recovery"], "after") {
			s.Recovery.After = nil
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(change))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return Spec{}, parseError(err)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return Spec{}, &SpecError{Name: s.Name, Problems: []string{"a second document follows, a change is one"}}
	}
	if problems := zeroes(change); problems != nil {
		return Spec{}, &SpecError{Name: s.Name, Problems: problems}
	}
	return s, nil
}

// has says whether a mapping has a key.
func has(mapping yaml.Node, key string) bool {
	for i := 0; mapping.Kind == yaml.MappingNode && i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return true
		}
	}
	return false
}
