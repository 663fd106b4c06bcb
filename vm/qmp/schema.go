package qmp

import (
	"context"
	"encoding/json"
	"slices"
)

// Schema is what a QEMU says about its own commands (query-qmp-schema).
type Schema struct {
	entities map[string]*entity
}

// entity is one of the schema's nodes; which fields it has depends on Meta.
type entity struct {
	Name     string   `json:"name"`
	Meta     string   `json:"meta-type"`
	Arg      string   `json:"arg-type"`     // command, event
	Ret      string   `json:"ret-type"`     // command
	OOB      bool     `json:"allow-oob"`    // command
	Element  string   `json:"element-type"` // array
	Values   []string `json:"values"`       // enum
	Features []string `json:"features"`
	Members  []struct {
		Name string `json:"name"` // object, enum; not alternate
		Type string `json:"type"` // object, alternate; not enum
	} `json:"members"`
	Variants []struct {
		Case string `json:"case"`
		Type string `json:"type"`
	} `json:"variants"` // object
}

// QuerySchema asks QEMU: 210 KB, about 50 ms.
func QuerySchema(ctx context.Context, c Executor) (*Schema, error) {
	s := new(Schema)
	if err := c.Execute(ctx, "query-qmp-schema", nil, s); err != nil {
		return nil, err
	}
	return s, nil
}

// UnmarshalJSON reads what query-qmp-schema returns.
func (s *Schema) UnmarshalJSON(data []byte) error {
	var list []*entity
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	s.entities = make(map[string]*entity, len(list))
	for _, e := range list {
		if e != nil {
			s.entities[e.Name] = e
		}
	}
	return nil
}

// Has tells whether a command exists, and in it the argument at path. A path
// goes down by names of members, of a union's cases and of enum values; lists are
// stepped into by themselves:
//
//	Has("yank", "instances", "block-node")
//	Has("blockdev-mirror", "copy-mode", "write-blocking")
func (s *Schema) Has(command string, path ...string) bool {
	e := s.command(command)
	return e != nil && s.walk(e.Arg, path)
}

// Returns is Has for what the command returns.
func (s *Schema) Returns(command string, path ...string) bool {
	e := s.command(command)
	return e != nil && s.walk(e.Ret, path)
}

// AllowsOOB tells whether the command may be executed out of band.
func (s *Schema) AllowsOOB(command string) bool {
	e := s.command(command)
	return e != nil && e.OOB
}

// Deprecated tells whether the command exists and is going to be removed.
func (s *Schema) Deprecated(command string) bool {
	e := s.command(command)
	return e != nil && slices.Contains(e.Features, "deprecated")
}

func (s *Schema) command(name string) *entity {
	if e := s.entities[name]; e != nil && e.Meta == "command" {
		return e
	}
	return nil
}

// walker goes down a path. Where it has been it does not go again: the schema
// comes from outside and may go in circles.
type walker struct {
	schema *Schema
	been   map[place]bool
}

type place struct {
	name string
	left int // of the path
}

func (s *Schema) walk(name string, path []string) bool {
	w := walker{schema: s, been: make(map[place]bool)}
	return w.walk(name, path)
}

func (w *walker) walk(name string, path []string) bool {
	here := place{name, len(path)}
	e := w.schema.entities[name]
	switch {
	case len(path) == 0:
		return true
	case e == nil || w.been[here]:
		return false
	}
	w.been[here] = true
	switch e.Meta {
	case "array":
		return w.walk(e.Element, path)
	case "enum":
		return len(path) == 1 && e.hasValue(path[0])
	case "object":
		for _, m := range e.Members {
			if m.Name == path[0] && w.walk(m.Type, path[1:]) {
				return true
			}
		}
		for _, v := range e.Variants {
			if v.Case == path[0] && w.walk(v.Type, path[1:]) {
				return true
			}
		}
	case "alternate":
		for _, m := range e.Members {
			if w.walk(m.Type, path) {
				return true
			}
		}
	}
	return false
}

func (e *entity) hasValue(value string) bool {
	for _, m := range e.Members {
		if m.Name == value {
			return true
		}
	}
	return slices.Contains(e.Values, value)
}
