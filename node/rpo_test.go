package node

import (
	"testing"
	"time"
)

func TestRPOWatch(t *testing.T) {
	const bound = 5 * time.Second
	good, bad := time.Second, 6*time.Second
	for _, test := range []struct {
		name string
		rpo  []time.Duration // one a second
		want string          // + alarm, - none
	}{
		{"always good", []time.Duration{good, bound, good}, "---"},
		{"one bad moment", []time.Duration{good, bad, bad, good, bad, bad, bad, good}, "--------"},
		{"bad for the settling time", []time.Duration{bad, bad, bad, bad, bad}, "---++"},
		{"good again", []time.Duration{bad, bad, bad, bad, good, good, bad, good, good, good, good}, "---+++++++-"},
	} {
		var w rpoWatch
		got, now := "", time.Unix(1000, 0)
		for _, rpo := range test.rpo {
			sign := "-"
			if w.step(now, rpo, bound) {
				sign = "+"
			}
			got, now = got+sign, now.Add(time.Second)
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
