package lab

import "testing"

// What a recorder does not see, no test of the product can find.
func TestRecorderSees(t *testing.T) {
	type record struct {
		node, token string
		counter     uint64
		broken      bool
	}
	for name, test := range map[string]struct {
		records []record
		wrong   int
	}{
		"a run":                        {[]record{{"a", "x", 1, false}, {"a", "x", 2, false}, {"a", "x", 2, false}}, 0},
		"a takeover":                   {[]record{{"a", "x", 1, false}, {"a", "x", 9, false}, {"b", "x", 5, false}, {"b", "x", 6, false}}, 0},
		"a boot":                       {[]record{{"a", "x", 9, false}, {"a", "y", 1, false}}, 0},
		"both at once":                 {[]record{{"a", "x", 8, false}, {"b", "x", 5, false}, {"a", "x", 9, false}}, 1},
		"a broken guest":               {[]record{{"a", "x", 1, true}}, 1},
		"a return to an earlier state": {[]record{{"a", "x", 9, false}, {"a", "x", 5, false}}, 1},
	} {
		var r Recorder
		for _, v := range test.records {
			r.note(v.node, Proof{Token: v.token, Counter: v.counter, Broken: v.broken})
		}
		if len(r.overlaps) != test.wrong {
			t.Errorf("%s: %v", name, r.overlaps)
		}
	}
}
