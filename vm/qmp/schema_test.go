package qmp_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"vmctl/vm/qmp"
	"vmctl/vm/qmp/qmptest"
)

func schema72(t *testing.T) *qmp.Schema {
	t.Helper()
	var s qmp.Schema
	check(t, json.Unmarshal(qmptest.Schema72(), &s))
	return &s
}

func TestSchema(t *testing.T) {
	s := schema72(t)
	for path, want := range map[string]bool{
		"stop":                        true,
		"STOP":                        false, // an event
		"no-such-command":             false,
		"xen-save-devices-state live": true,
		"xen-save-devices-state dead": false,
		"blockdev-mirror copy-mode write-blocking":                         true,
		"blockdev-mirror copy-mode write-once":                             false,
		"blockdev-mirror copy-mode write-blocking x":                       false,
		"yank instances block-node node-name":                              true,
		"yank instances qom":                                               false,
		"netdev_add dgram":                                                 true,
		"netdev_add type dgram":                                            true,
		"blockdev-add nbd server unix path":                                true,
		"blockdev-add raw file":                                            true, // an alternate
		"blockdev-add raw file nbd export":                                 true,
		"transaction actions blockdev-backup data sync full":               true,
		"migrate-set-capabilities capabilities capability x-ignore-shared": true,
		"migrate-set-capabilities capabilities capability x-ignore":        false,
	} {
		words := strings.Fields(path)
		if got := s.Has(words[0], words[1:]...); got != want {
			t.Errorf("Has(%s) is %v", path, got)
		}
	}
	if !s.Returns("query-status", "running") || s.Returns("query-status", "walking") {
		t.Error("Returns is wrong about query-status")
	}
	if !s.AllowsOOB("yank") || s.AllowsOOB("stop") || s.AllowsOOB("nothing") {
		t.Error("AllowsOOB is wrong")
	}
	if !s.Deprecated("query-cpus-fast") && !s.Deprecated("change-vnc-password") && s.Deprecated("stop") {
		t.Error("Deprecated is wrong")
	}
}

// Every feature is really looked for: without its command it is missing.
func TestFeaturesMissing(t *testing.T) {
	whole := schema72(t).Features()
	if missing := whole.Missing(); len(missing) != 0 || whole.MirrorActivelySynced {
		t.Fatalf("QEMU 7.2: missing %v, %+v", missing, whole)
	}
	if missing := (qmp.Features{}).Missing(); len(missing) != 17 {
		t.Errorf("nothing there: %d missing", len(missing))
	}
	for command, want := range map[string][]string{
		"xen-save-devices-state": {"xen-save-devices-state live"},
		"remove-fd":              {"add-fd"},
		"getfd":                  {"getfd"},
		"migrate-incoming":       {"migrate-incoming"},
		"blockdev-mirror":        {"blockdev-mirror copy-mode=write-blocking"},
		"nbd-server-start":       {"block-export-add nbd"},
		"block-job-cancel":       {"block-job-cancel force"},
		"yank":                   {"yank block-node"},
		"transaction":            {"transaction block-dirty-bitmap-add", "transaction blockdev-backup"},
		"announce-self":          {"announce-self"},
		"netdev_add":             {"netdev dgram"},
		"migrate-set-capabilities": {"capability x-ignore-shared", "capability pause-before-switchover",
			"capability postcopy-ram", "capability multifd"},
	} {
		var list []map[string]any
		check(t, json.Unmarshal(qmptest.Schema72(), &list))
		list = slices.DeleteFunc(list, func(e map[string]any) bool { return e["name"] == command })
		text, err := json.Marshal(list)
		check(t, err)
		var s qmp.Schema
		check(t, json.Unmarshal(text, &s))
		if got := s.Features().Missing(); !slices.Equal(got, want) {
			t.Errorf("without %s: missing %v, want %v", command, got, want)
		}
	}
}
