package vm

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

func TestRecoveryRefuses(t *testing.T) {
	for _, test := range []struct {
		change func(*Spec)
		want   string // empty: accepted
	}{
		{func(*Spec) {}, ""},
		{func(s *Spec) { s.Recovery.Action = "reboot" }, `recovery action "reboot": use resume, restart or leave`},
		{func(s *Spec) { s.Recovery.Action = "leave" }, ""},
		{func(s *Spec) { s.Recovery.Priority = 1001 }, "priority 1001: use -1000 to 1000"},
		{func(s *Spec) { s.Recovery.Priority = -1000 }, ""},
		{func(s *Spec) { s.Recovery.After = []string{"db", "cache"} }, ""},
		{func(s *Spec) { s.Recovery.After = []string{"a"} }, `after "a": a guest cannot wait for itself`},
		{func(s *Spec) { s.Recovery.After = []string{"db", "db"} }, `after "db": it is named twice`},
		{func(s *Spec) { s.Recovery.After = []string{"../x"} }, "no guest's name"},
		{func(s *Spec) { s.Recovery.After = strings.Split(strings.Repeat("x,", 65), ",") }, "64 are the most"},
		{func(s *Spec) { s.Recovery.Attempts = -1 }, "attempts -1: use 1 to 1000"},
		{func(s *Spec) { s.Recovery.BackoffSeconds = 601 }, "backoff_seconds 601: use more than 0, at most 600"},
		{func(s *Spec) { s.Recovery.Failback = "always" }, `failback "always": use never or when-synced`},
		{func(s *Spec) { s.Recovery.Failback = "when-synced" }, "needs protection resume"},
		{func(s *Spec) { s.Recovery.Failback, s.Protection.Level = "when-synced", "resume" }, ""},
		{func(s *Spec) { s.Recovery.SettleSeconds = 86401 }, "settle_seconds 86401: use more than 0, at most 86400"},
	} {
		s := Spec{Name: "a", Protection: Protection{Level: ProtectNone}}.Defaults(testHost())
		test.change(&s)
		err := s.Defaults(testHost()).Validate(testHost())
		if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrBadSpec) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v, want %q", s.Recovery, err, test.want)
		}
	}
}

func TestRecoveryDefaults(t *testing.T) {
	got := Spec{Name: "a"}.Defaults(testHost()).Recovery
	if want := (Recovery{Action: "resume", Attempts: 3, BackoffSeconds: 5, Failback: "never"}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if home := (Spec{Recovery: Recovery{Failback: "when-synced"}}).Defaults(testHost()).Recovery; home.SettleSeconds != 60 {
		t.Errorf("%+v", home)
	}
}

// A list in a change replaces the one that is there, and no other field.
func TestChangeOfRecovery(t *testing.T) {
	s := Spec{Name: "a", Recovery: Recovery{Priority: 3, After: []string{"db", "cache"}}}
	for change, want := range map[string][]string{
		"recovery: {after: [mail]}": {"mail"}, "recovery: {after: []}": {}, "recovery: {attempts: 9}": {"db", "cache"},
	} {
		got, err := ChangeSpec(s, []byte(change))
		if err != nil || len(got.Recovery.After) != len(want) || len(want) > 0 && !reflect.DeepEqual(got.Recovery.After, want) || got.Recovery.Priority != 3 {
			t.Errorf("%s: %+v, %v", change, got.Recovery, err)
		}
	}
	if s.Recovery.After[0] != "db" {
		t.Error("a change wrote into the spec that it was made of")
	}
}

// Device states carry a hash of the encoded spec: what a guest without a
// recovery policy encodes to must stay as it was before there was one.
func TestEmptyRecoveryIsNotEncoded(t *testing.T) {
	data, err := msgpack.Marshal(Spec{Name: "a"})
	if err != nil || bytes.Contains(data, []byte("recovery")) {
		t.Errorf("%v, %q", err, data)
	}
}
