package guard

import (
	"errors"
	"testing"
)

func TestLease(t *testing.T) {
	const now = 1000
	for _, c := range []struct {
		name     string
		start    int64
		epoch    uint64
		deadline int64
		want     error
		then     int64
	}{
		{"later", 1500, 7, 2000, nil, 2000},
		{"earlier is kept out", 1500, 7, 1200, nil, 1500},
		{"same", 1500, 7, 1500, nil, 1500},
		{"after expiry", 900, 7, 1001, nil, 1001},
		{"from Forever to a lease", Forever, 7, 1200, nil, 1200},
		{"from a lease to Forever", 1500, 7, Forever, nil, Forever},
		{"at now", 1500, 7, now, ErrPastDeadline, 1500},
		{"past, from Forever", Forever, 7, 999, ErrPastDeadline, Forever},
		{"stale", 1500, 6, 2000, ErrStaleEpoch, 1500},
		{"unknown", 1500, 8, 2000, ErrUnknownEpoch, 1500},
		{"stale and past", 1500, 6, 1, ErrStaleEpoch, 1500},
	} {
		l := lease{epoch: 7, deadline: c.start}
		if err := l.renew(now, c.epoch, c.deadline); !errors.Is(err, c.want) || l.deadline != c.then || l.epoch != 7 {
			t.Errorf("%s: %v, %+v; want %v, deadline %d", c.name, err, l, c.want, c.then)
		}
	}
	l := lease{deadline: now}
	for at, want := range map[int64]bool{now - 1: false, now: true, now + 1: true} {
		if l.expired(at) != want {
			t.Errorf("deadline %d: expired(%d) is %v", now, at, !want)
		}
	}
	if l.deadline = Forever; l.expired(Forever) {
		t.Error("Forever expires")
	}
}

func TestClaim(t *testing.T) {
	for _, c := range []struct {
		standby  bool
		epoch    uint64
		deadline int64
		want     error
	}{
		{true, 8, 2000, nil}, {true, 7, 2000, nil},
		{true, 6, 2000, ErrStaleEpoch}, {true, 8, 1000, ErrPastDeadline}, {false, 8, 2000, ErrNotStandby},
	} {
		l := lease{epoch: 7, deadline: Forever, standby: c.standby}
		err := l.claim(1000, c.epoch, c.deadline)
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil && (l.standby || l.epoch != c.epoch || l.deadline != c.deadline) {
			t.Errorf("%+v: %+v", c, l)
		}
		if err != nil && (l.epoch != 7 || l.deadline != Forever) {
			t.Errorf("refused, but changed: %+v", l)
		}
	}
}

// Whatever the order of events: once a `cont` was asked for, the pause it was for
// is answered as ended, and none begins until it is done.
func TestPauses(t *testing.T) {
	p := newPauses()
	must := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %+v", what, p)
		}
	}
	must("nothing is due", p.due == Forever && !p.expire(Forever))
	must("id 0", errors.Is(p.begin(0, 0, 5, 1), ErrMalformed))
	must("bound 0", errors.Is(p.begin(0, 1, 0, 1), ErrMalformed))
	must("bound too long", errors.Is(p.begin(0, 1, int64(maxPause)+1, 1), ErrMalformed))
	must("begin", p.begin(100, 1, 50, 1) == nil && p.due == 150)
	must("in time", !p.expire(149))
	must("not another's", !p.drop(2))
	must("bound passed", p.expire(150) && p.ended && p.wantResume())
	must("looked at again later", p.due > 150+50 && !p.expire(151) && p.expire(p.due))
	must("one after the other", !p.wantResume())
	ended, err := p.end(1)
	must("ended", ended && err == nil && p.due == Forever)
	must("busy", errors.Is(p.begin(200, 2, 50, 1), ErrPauseBusy))
	must("again", p.resumeDone() && p.resuming)
	must("still busy", errors.Is(p.begin(200, 2, 50, 1), ErrPauseBusy))
	must("done", !p.resumeDone())
	must("used", errors.Is(p.begin(200, 1, 50, 1), ErrPauseUsed))
	must("next", p.begin(200, 2, 50, 1) == nil)
	must("owner gone", p.drop(1) && !p.open)
	must("owner gone only once", !p.drop(1))
	ended, err = p.end(2)
	must("ended by the guard", ended && err == nil)

	for id := uint64(3); id < 200; id++ {
		if p.begin(0, id, 1, 1) != nil || !p.drop(1) {
			t.Fatalf("pause %d: %+v", id, p)
		}
	}
	_, err = p.end(3)
	must("forgotten", errors.Is(err, ErrPauseUnknown))
	ended, err = p.end(199 - 63)
	must("remembered", ended && err == nil)
}

// A pause that was dropped after its bound is ended once, but the guest is looked
// at again: its owner may have stopped it late.
func TestLateOwnerDies(t *testing.T) {
	p := newPauses()
	if p.begin(0, 1, 10, 1) != nil || !p.expire(10) || !p.drop(1) || p.count != 1 {
		t.Errorf("%+v", p)
	}
}
