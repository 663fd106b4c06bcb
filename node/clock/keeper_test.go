package clock

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// guest is one whose clock is behind this host's.
type guest struct {
	mu      sync.Mutex
	behind  time.Duration
	silent  bool // no agent
	deaf    bool // an agent that does not set the clock
	grudges bool // sets it and complains
	stopped bool
	breaks  bool // falls silent once it has set the clock
	dials   int
	sets    []time.Duration // how far each went
	told    []time.Duration // Set
	late    []time.Duration // Late
}

var errSilent = errors.New("silent")

func (g *guest) Time(ctx context.Context) (time.Time, error) {
	g.mu.Lock()
	silent := g.silent || g.stopped
	behind := g.behind
	g.mu.Unlock()
	if silent {
		<-ctx.Done()
		return time.Time{}, errSilent
	}
	return time.Now().Add(-behind), nil
}

func (g *guest) SetTime(_ context.Context, t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.deaf {
		g.sets = append(g.sets, g.behind-time.Since(t))
		g.behind = time.Since(t)
	}
	g.silent = g.silent || g.breaks
	if g.deaf || g.grudges {
		return errors.New("hwclock failed")
	}
	return nil
}

func (g *guest) Close() error { return nil }

// lose is a pause.
func (g *guest) lose(k *Keeper, d time.Duration) {
	g.change(func() { g.behind += d })
	k.Lost(d)
}

func (g *guest) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// keep runs a keeper of the guest for the length of the test.
func (g *guest) keep(t *testing.T, resumed bool) *Keeper {
	k := New(Config{
		Dial: func(ctx context.Context) (Agent, error) {
			g.change(func() { g.dials++ })
			_, err := g.Time(ctx)
			return g, err
		},
		Running: func(context.Context) bool { g.mu.Lock(); defer g.mu.Unlock(); return !g.stopped },
		Set:     func(late time.Duration) { g.change(func() { g.told = append(g.told, late) }) },
		Late:    func(lost time.Duration, _ error) { g.change(func() { g.late = append(g.late, lost) }) },
		Resumed: resumed, Now: time.Now,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { k.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return k
}

func TestResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guest{behind: 3 * time.Second}
		k := g.keep(t, true)
		pass(time.Second)
		if len(g.sets) != 1 || g.behind != 0 || len(g.told) != 1 || g.told[0] != 3*time.Second {
			t.Errorf("set %v, told %v, %v behind", g.sets, g.told, g.behind)
		}
		if s := k.Status(); !s.Answers || s.Behind > tolerated || s.Reason != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// TestResumedAndBroken: an agent that does not answer any more when it has set the
// clock has set it, which people hear of when it answers again.
func TestResumedAndBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guest{behind: 3 * time.Second, breaks: true}
		g.keep(t, true)
		pass(4 * time.Second)
		if len(g.sets) != 1 || len(g.told) != 0 {
			t.Errorf("silent: set %v, told %v", g.sets, g.told)
		}
		g.change(func() { g.silent, g.breaks = false, false })
		pass(time.Minute)
		if len(g.sets) != 1 || len(g.told) != 1 || g.told[0] != 3*time.Second {
			t.Errorf("set %v, told %v", g.sets, g.told)
		}
	})
}

// TestOnlyForward: a guest that is ahead, or that lost nothing, is left alone.
func TestOnlyForward(t *testing.T) {
	for name, test := range map[string]struct {
		behind, lost time.Duration
		resumed      bool
	}{
		"ahead, resumed": {-time.Hour, 0, true}, "ahead, paused": {-time.Hour, time.Second, false},
		"another time, nothing lost": {time.Hour, 0, false}, "hardly behind": {tolerated, time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &guest{behind: test.behind}
				k := g.keep(t, test.resumed)
				if test.lost > 0 {
					k.Lost(test.lost)
				}
				pass(5 * time.Minute)
				if len(g.sets) > 0 || g.behind != test.behind {
					t.Errorf("set %v", g.sets)
				}
				if s := k.Status(); !s.Answers || s.Behind != test.behind {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

// TestPauses: the drift stays within what is allowed, by few steps.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guest{}
		k := g.keep(t, false)
		var worst time.Duration
		for range 600 { // 5 minutes, 20 ms each half second
			pass(500 * time.Millisecond)
			g.lose(k, 20*time.Millisecond)
			g.change(func() { worst = max(worst, g.behind) })
		}
		if worst > Allowed+20*time.Millisecond || len(g.sets) < 100 || len(g.sets) > 130 {
			t.Errorf("%v behind at worst, set %d times", worst, len(g.sets))
		}
		g.sets = nil
		g.lose(k, 70*time.Millisecond)
		pass(atLatest / 2)
		if len(g.sets) > 0 && g.behind > 0 {
			t.Errorf("a little was made up for at once")
		}
		pass(atLatest)
		if g.behind > tolerated {
			t.Errorf("a little was never made up for: %v", g.behind)
		}
		if len(g.told)+len(g.late) > 0 {
			t.Errorf("told %v, late %v", g.told, g.late)
		}
	})
}

// TestNobodyAnswers: people hear of a late clock once, and the agent, when it
// comes, sets it.
func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guest{silent: true, behind: 2 * time.Second}
		k := g.keep(t, true)
		pass(10 * time.Minute)
		if len(g.late) != 1 || k.Status().Answers || k.Status().Reason == "" {
			t.Errorf("late %v, status %+v", g.late, k.Status())
		}
		if g.dials > 40 {
			t.Errorf("dialled %d times in ten minutes", g.dials)
		}
		g.change(func() { g.silent = false })
		pass(2 * retryLast)
		if g.behind > tolerated || len(g.told) != 1 || !k.Status().Answers {
			t.Errorf("%v behind, told %v, status %+v", g.behind, g.told, k.Status())
		}
	})
}

// TestNoAgentNothingLost: a guest without an agent is no event by itself, nor
// one with a few pauses; with many it is.
func TestNoAgentNothingLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guest{silent: true}
		k := g.keep(t, false)
		k.Lost(noted - time.Millisecond)
		pass(time.Hour)
		if len(g.late) != 0 {
			t.Errorf("late %v", g.late)
		}
		k.Lost(time.Millisecond)
		pass(time.Hour)
		if len(g.late) != 1 || g.late[0] != noted {
			t.Errorf("late %v", g.late)
		}
	})
}

// TestAgentsOddities: what counts is what the clock shows.
func TestAgentsOddities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grudging := &guest{behind: 5 * time.Second, grudges: true}
		grudging.keep(t, true)
		deaf := &guest{behind: 5 * time.Second, deaf: true}
		k := deaf.keep(t, true)
		pass(5 * time.Minute)
		if grudging.behind != 0 || len(grudging.late) != 0 {
			t.Errorf("an agent that complains: %v behind, late %v", grudging.behind, grudging.late)
		}
		if len(deaf.late) != 1 || k.Status().Answers {
			t.Errorf("an agent that does not set: late %v", deaf.late)
		}
	})
}

// TestStandsStill: a paused guest is not asked, and set when it goes on.
func TestStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guest{stopped: true}
		k := g.keep(t, true)
		pass(time.Hour)
		if g.dials != 0 || len(g.late) != 0 {
			t.Errorf("dialled %d times, late %v", g.dials, g.late)
		}
		g.lose(k, time.Hour)
		g.change(func() { g.stopped = false })
		pass(2 * time.Second)
		if g.behind > tolerated || k.Status().Behind > tolerated {
			t.Errorf("%v behind", g.behind)
		}
	})
}

// pass lets time go by, and everybody come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
