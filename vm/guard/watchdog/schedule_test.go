package watchdog

import (
	"testing"
	"time"

	"vmctl/vm/guard"
)

const second = int64(time.Second)

func TestTimingOf(t *testing.T) {
	for _, c := range []struct{ timeout, stop, early, late time.Duration }{
		{time.Second, 300 * time.Millisecond, 750 * time.Millisecond, 0},
		{time.Second, 50 * time.Millisecond, time.Second, 0},
		{time.Second, 2 * time.Second, 0, 0},
		{2 * time.Second, 300 * time.Millisecond, time.Second, 750 * time.Millisecond},
		{10 * time.Second, 300 * time.Millisecond, time.Second, 8750 * time.Millisecond},
	} {
		got := timingOf(c.timeout, c.stop)
		if got != (timing{int64(c.timeout), int64(c.early), int64(c.late)}) {
			t.Errorf("%v, stop %v: %+v", c.timeout, c.stop, got)
		}
		// The promise: the last feed and the timeout end within D of the deadline.
		if end := c.timeout - time.Duration(got.early) + margin - time.Duration(got.late); end > c.stop {
			t.Errorf("%v, stop %v: it fires %v after the deadline", c.timeout, c.stop, end)
		}
	}
}

func TestFedUntil(t *testing.T) {
	tm := timingOf(time.Second, 300*time.Millisecond)
	early := tm.early
	for _, c := range []struct {
		name   string
		guests map[int]watched
		until  int64
		leased bool
	}{
		{"nobody", nil, guard.Forever, false},
		{"no lease", map[int]watched{1: {deadline: guard.Forever}}, guard.Forever, false},
		{"a lease", map[int]watched{1: {deadline: 9 * second}}, 9*second - early, true},
		{"the earliest counts", map[int]watched{1: {deadline: 9 * second}, 2: {deadline: 8 * second}, 3: {deadline: guard.Forever}}, 8*second - early, true},
		{"stopped", map[int]watched{1: {deadline: 9 * second, quiet: 10 * second}}, 10*second + int64(quietFor), true},
		{"stopped long ago", map[int]watched{1: {deadline: 9 * second, quiet: 2 * second}}, 9*second - early, true},
		{"one stopped, one not", map[int]watched{1: {deadline: 9 * second, quiet: 10 * second}, 2: {deadline: 9 * second}}, 9*second - early, true},
	} {
		if until, leased := fedUntil(c.guests, tm); until != c.until || leased != c.leased {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, time.Duration(until), leased, time.Duration(c.until), c.leased)
		}
	}
}

func TestLookAgain(t *testing.T) {
	const now = 100 * second
	for _, c := range []struct {
		name string
		s    guard.Status
		want time.Duration
	}{
		{"no lease", guard.Status{Deadline: guard.Forever}, 100 * time.Millisecond},
		{"a long lease", guard.Status{Deadline: now + second}, 100 * time.Millisecond},
		{"right after the deadline", guard.Status{Deadline: now + second/100}, 12 * time.Millisecond},
		{"expired, still running", guard.Status{Deadline: now - 1, Frozen: true}, 5 * time.Millisecond},
		{"stopped", guard.Status{Deadline: now - 1, Frozen: true, Stopped: true}, 50 * time.Millisecond},
	} {
		if got := lookAgain(c.s, now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestNeverFiresWhenFrozen goes through every moment of an isolation: the time from
// the last feed to the first after the freeze must be shorter than the timeout.
func TestNeverFiresWhenFrozen(t *testing.T) {
	tm := timingOf(time.Second, 300*time.Millisecond)
	k := &keeper{timing: tm, device: &fakeDevice{}, guests: map[int]watched{}}
	const deadline = 10 * second
	var last, worst int64
	for now := 7 * second; now < 14*second; {
		w := watched{deadline: deadline}
		if now >= deadline+2*second/1000 {
			w.quiet = now // the guard said so
		}
		k.guests[1] = w
		feeds := k.feeds
		k.act(now)
		if k.feeds > feeds {
			if last != 0 {
				worst = max(worst, now-last)
			}
			last = now
			if now > deadline-tm.early && now < deadline {
				t.Fatalf("fed %v before the deadline", time.Duration(deadline-now))
			}
		}
		// The guard is looked at again at 2 ms past the deadline, the timer is 1 ms late.
		step := int64(k.next(now)) + second/1000
		if now < deadline {
			step = min(step, deadline+2*second/1000-now)
		}
		now += step
	}
	if worst == 0 || worst > tm.timeout-second/10 {
		t.Errorf("%v without food, of %v", time.Duration(worst), time.Duration(tm.timeout))
	}
}
