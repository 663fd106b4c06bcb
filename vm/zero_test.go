package vm

import (
	"errors"
	"strings"
	"testing"
)

// TestZeroIsNoDefault: a 0 that would mean the default in silence is refused, in
// a spec and in a change of one, and says what the default is.
func TestZeroIsNoDefault(t *testing.T) {
	for _, test := range []struct{ text, say string }{
		{"cpus: 0", "line 1: cpus: use more than 0; 1 is the default"},
		{"memory: 0", "memory: use more than 0; 512MiB is"},
		{"memory: 0M", "memory: use more than 0"},
		{"protection: {level: resume, interval_seconds: 0}", "protection interval_seconds: use more than 0; 0.5 is"},
		{"restart: {attempts: 0}", "restart attempts: use more than 0; 3 is"},
		{"restart: {window_seconds: 0}", "restart window_seconds: use more than 0; 3600 is"},
		{"restart: {backoff_seconds: 0.0}", "restart backoff_seconds: use more than 0; 2 is"},
		{"recovery: {attempts: 0}", "recovery attempts: use more than 0; 3 is"},
		{"recovery:\n  backoff_seconds: 0", "line 2: recovery backoff_seconds: use more than 0; 5 is"},
		{"{\"recovery\": {\"settle_seconds\": -0}}", "recovery settle_seconds: use more than 0; 60 is"},
		{"disks: [{size: 1G}, {image: /x, size: 0}]", "a disk's size: use more than 0"},
		{"{cpus: 0, recovery: {attempts: 0}}", "bad spec"}, // both are told
		{"protection: {resync_rate: 0}", ""},               // these have a meaning of 0
		{"recovery: {priority: 0}", ""},
		{"{cpus: 2, restart: {backoff_seconds: 0.5}}", ""},
		{"cpus:", ""}, // nothing was said
	} {
		_, parsed := ParseSpec([]byte(test.text))
		_, changed := ChangeSpec(Spec{Name: "web", CPUs: 2}, []byte(test.text))
		for what, err := range map[string]error{"a spec": parsed, "a change": changed} {
			if (err == nil) != (test.say == "") || err != nil && (!errors.Is(err, ErrBadSpec) || !strings.Contains(err.Error(), test.say)) {
				t.Errorf("%s %q: %v, want %q", what, test.text, err, test.say)
			}
		}
	}
	var list *SpecError
	if _, err := ParseSpec([]byte("{cpus: 0, recovery: {attempts: 0}}")); !errors.As(err, &list) || len(list.Problems) != 2 {
		t.Errorf("%v", err)
	}
}
