package headroom

import (
	"testing"
	"time"
)

// TestBudget: below half of the reserve the largest copy goes, one at a time, and its
// guest is without one for a while, longer each time; above the reserve one may begin.
func TestBudget(t *testing.T) {
	const reserve = 1000
	b := NewBudget(reserve)
	now := time.Unix(1000, 0)
	copies := []Copy{{"small", 10}, {"large", 90}, {"none", 0}}
	look := func(available int64, want string) {
		t.Helper()
		if give, short := b.Look(now, available, copies); give.Guest != want || short != (want != "") {
			t.Errorf("%d available: %q, short %t; want %q", available, give.Guest, short, want)
		}
	}
	room := func(guest string, want int64) {
		t.Helper()
		if got := b.Room(guest, false, now); got != want {
			t.Errorf("room for %s: %d, want %d", guest, got, want)
		}
	}
	grows := func(guest string, want int64) {
		t.Helper()
		if got := b.Room(guest, true, now); got != want {
			t.Errorf("room for %s, which has a copy: %d, want %d", guest, got, want)
		}
	}
	look(5000, "")
	room("small", 4000)
	look(700, "") // no new one, but those that are there stay
	room("small", 0)
	grows("small", 200)
	look(400, "large")
	room("large", -1)
	grows("large", -1)
	room("small", 0)
	grows("small", 0)
	copies[1].Bytes = 0
	look(400, "") // what it had is on its way back
	now = now.Add(freed)
	look(400, "small")
	copies[0].Bytes = 0
	now = now.Add(freed)
	look(400, "") // there is nothing left to give
	now = now.Add(shortRest)
	look(5000, "")
	room("large", 4000)
	copies[1].Bytes = 90
	look(100, "large")
	now = now.Add(shortRest)
	room("large", -1) // twice as long as before
	now = now.Add(shortRest)
	room("large", 0)
	for range 10 {
		look(100, "large")
		now = now.Add(longRest)
	}
	if lasts := b.out["large"].lasts; lasts != longRest {
		t.Errorf("it rests for %v at most", lasts)
	}
	now = now.Add(forgiven + time.Second)
	look(5000, "")
	if len(b.out) != 0 {
		t.Errorf("nothing is forgiven: %v", b.out)
	}
}

func TestDefaultReserve(t *testing.T) {
	for total, want := range map[int64]int64{512 * mib: 128 * mib, 4 * gib: 256 * mib, 20 * gib: gib, 256 * gib: 2 * gib} {
		if got := DefaultReserve(total); got != want {
			t.Errorf("of %d: %d, want %d", total, got, want)
		}
	}
}
