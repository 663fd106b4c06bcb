package node

import (
	"testing"
	"time"

	"vmctl/vm"
)

// TestRooms: below half of the reserve the largest copy goes, one at a time, and its
// guest is without one for a while, longer each time; above the reserve one may begin.
func TestRooms(t *testing.T) {
	const reserve = 1000
	r := &rooms{reserve: reserve, out: map[string]without{}}
	now := time.Unix(1000, 0)
	copies := []copyHeld{{"small", 10}, {"large", 90}, {"none", 0}}
	look := func(available int64, want string) {
		t.Helper()
		if give, short := r.look(now, available, copies); give.guest != want || short != (want != "") {
			t.Errorf("%d available: %q, short %t; want %q", available, give.guest, short, want)
		}
	}
	room := func(guest string, want int64) {
		t.Helper()
		if got := r.of(guest, false, now); got != want {
			t.Errorf("room for %s: %d, want %d", guest, got, want)
		}
	}
	grows := func(guest string, want int64) {
		t.Helper()
		if got := r.of(guest, true, now); got != want {
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
	copies[1].bytes = 0
	look(400, "") // what it had is on its way back
	now = now.Add(freed)
	look(400, "small")
	copies[0].bytes = 0
	now = now.Add(freed)
	look(400, "") // there is nothing left to give
	now = now.Add(shortRest)
	look(5000, "")
	room("large", 4000)
	copies[1].bytes = 90
	look(100, "large")
	now = now.Add(shortRest)
	room("large", -1) // twice as long as before
	now = now.Add(shortRest)
	room("large", 0)
	for range 10 {
		look(100, "large")
		now = now.Add(longRest)
	}
	if lasts := r.out["large"].lasts; lasts != longRest {
		t.Errorf("it rests for %v at most", lasts)
	}
	now = now.Add(forgiven + time.Second)
	look(5000, "")
	if len(r.out) != 0 {
		t.Errorf("nothing is forgiven: %v", r.out)
	}
}

func TestDefaultReserve(t *testing.T) {
	for total, want := range map[vm.Size]vm.Size{512 * vm.MiB: 128 * vm.MiB, 4 * vm.GiB: 256 * vm.MiB, 20 * vm.GiB: vm.GiB, 256 * vm.GiB: 2 * vm.GiB} {
		if got := defaultReserve(total); got != want {
			t.Errorf("of %v: %v, want %v", total, got, want)
		}
	}
}

// TestSameFailure: attempts that fail for one reason are one event, whatever their numbers.
func TestSameFailure(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"peer refused checkpoint 1/37: no room", "peer refused checkpoint 1/38: no room", true},
		{"dial 10.0.0.2:7440: refused", "dial 10.0.0.2:7440: no route to host", false},
		{"", "link lost", false},
	} {
		if same := withoutNumbers(c.a) == withoutNumbers(c.b); same != c.same {
			t.Errorf("%q and %q: %t", c.a, c.b, same)
		}
	}
}
