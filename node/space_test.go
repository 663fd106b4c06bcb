package node

import "testing"

func TestSpaceLow(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		free, total int64
		was, low    bool
	}{
		{6 * gib, 100 * gib, false, false},
		{4 * gib, 100 * gib, false, true},
		{5*gib + gib/2, 100 * gib, true, true}, // it does not flap
		{5*gib + gib/2, 100 * gib, false, false},
		{6*gib + 1, 100 * gib, true, false},
		{11 * gib, 4000 * gib, false, false},
		{9 * gib, 4000 * gib, false, true},
		{0, 10, false, false}, // of nothing nothing is low
	} {
		if low := spaceLow(c.free, c.total, c.was); low != c.low {
			t.Errorf("%d of %d, low before %t: low %t", c.free, c.total, c.was, low)
		}
	}
}
