package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

const maxSpec = 1 << 20 // bytes of a spec file

// ParseSpec reads a spec file: one YAML document, nothing unknown in it. It
// fills in nothing and checks no values; that is Defaults and Validate. The
// error is a *SpecError that lists every problem with its line.
func ParseSpec(data []byte) (Spec, error) {
	var s Spec
	if len(data) > maxSpec {
		return Spec{}, &SpecError{Problems: []string{fmt.Sprintf("the file is larger than %v", Size(maxSpec))}}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil {
		return Spec{}, parseError(err)
	}
	var more yaml.Node
	if err := decoder.Decode(&more); err == nil {
		return Spec{}, &SpecError{Name: s.Name, Problems: []string{
			fmt.Sprintf("line %d: a second document begins here, a file holds one guest", more.Line)}}
	} else if !errors.Is(err, io.EOF) {
		return Spec{}, parseError(err)
	}
	if problems := zeroes(data); problems != nil {
		return Spec{}, &SpecError{Name: s.Name, Problems: problems}
	}
	return s, nil
}

var unknownField = regexp.MustCompile(`^(line \d+: )field (.*) not found in type vm\.(\w+)$`)

// sections name the Go types in the words of the file.
var sections = map[string]string{
	"Spec": "a guest", "Disk": "a disk", "NIC": "a nic", "Protection": "protection", "Restart": "restart", "Recovery": "recovery",
}

var wrongKind = regexp.MustCompile("^(line \\d+: )cannot unmarshal !!\\w+ ?(`.*`)? ?into (\\S+)$")

// kinds name what a field takes in the words of people.
var kinds = map[string]string{
	"int": "a whole number", "float64": "a number", "bool": "true or false", "string": "text", "[]string": "a list of words",
	"vm.Spec": "a guest (name: NAME and so on)", "vm.Protection": "a mapping (level: resume and so on)", "vm.Restart": "a mapping (policy: always and so on)",
	"vm.Recovery": "a mapping (action: resume and so on)", "[]vm.Disk": "a list of disks", "vm.Disk": "a disk (size: 10G and so on)",
	"[]vm.NIC": "a list of network cards", "vm.NIC": "a network card (bridge: br0 and so on)",
}

func parseError(err error) error {
	if errors.Is(err, io.EOF) {
		return &SpecError{Problems: []string{"the file is empty"}}
	}
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return &SpecError{Problems: []string{err.Error()}}
	}
	problems := make([]string, len(typed.Errors))
	for i, text := range typed.Errors {
		if m := unknownField.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("%sunknown field %q of %s", m[1], m[2], sections[m[3]])
		} else if m := wrongKind.FindStringSubmatch(text); m != nil && kinds[m[3]] != "" {
			text = m[1] + strings.TrimPrefix(m[2]+": ", ": ") + kinds[m[3]] + " is wanted here"
		}
		problems[i] = text
	}
	return &SpecError{Problems: problems}
}
