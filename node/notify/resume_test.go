package notify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// book is an owner of events, over several runs of a notifier.
type book struct {
	events  []Event
	heard   []Heard
	first   uint64 // the oldest position that it still has
	alarms  []Event
	current *Notifier
	end     func()
}

// open starts a run with these targets, each named by its key.
func (b *book) open(t *testing.T, targets map[string]sender) (gone []Gone) {
	t.Helper()
	var senders []sender
	var keys []string
	for key := range targets {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		senders = append(senders, targets[key])
	}
	n := newNotifier(senders, silent)
	for i, key := range keys {
		n.targets[i].key = key
		n.targets[i].kind, _, _ = strings.Cut(key, "-")
	}
	var last uint64
	if len(b.events) > 0 {
		last = b.events[len(b.events)-1].Position
	}
	gone = n.Resume(b.heard, last, b.alarms, func(position uint64) []Event {
		return beyond(b.events, max(position, b.first))
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	b.current, b.end = n, sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(b.end)
	synctest.Wait()
	return gone
}

func (b *book) write(kind string, state State) {
	position := uint64(len(b.events) + 1)
	e := Event{Kind: kind, State: state, Severity: Warning, Time: time.Now(), ID: fmt.Sprintf("id-%d", position), Position: position}
	b.events = append(b.events, e)
	b.current.Notify(e)
	synctest.Wait()
}

// ids are those of what was delivered.
func (f *fake) ids() (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.got {
		list = append(list, strings.TrimPrefix(d.ID, "id-"))
	}
	return list
}

// door is a target that takes nothing while it is shut.
func door() (f *fake, open func(bool)) {
	var shut bool
	f = &fake{answer: func(int, Delivery) error {
		if shut {
			return errors.New("away")
		}
		return nil
	}}
	return f, func(wide bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		shut = !wide
	}
}

// TestResume: what a target had not got when a run ended it gets from the next,
// in order, before what is new, under the same ids; what it had got it does not
// get again; another target hears nothing twice.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b book
		late, open := door()
		prompt := &fake{}
		targets := map[string]sender{"webhook-a": late, "webhook-b": prompt}
		b.open(t, targets)
		b.write("first", Plain)
		open(false)
		b.write("lost", On)
		b.write("plain", Plain)
		b.heard = b.current.Heard()
		b.write("lost", Off) // after the last time that anything was stored
		b.end()
		open(true)
		prompt.forget()
		b.open(t, targets)
		b.write("new", Plain)
		if got := late.told(); got != "first loston plain lostoff new" || fmt.Sprint(late.ids()) != "[1 2 3 4 5]" {
			t.Errorf("%s, ids %v", got, late.ids())
		}
		if got := prompt.told(); got != "lostoff new" { // in doubt: twice
			t.Errorf("the one that had got all: %s", got)
		}
		b.heard = b.current.Heard()
		b.end()
		late.forget()
		b.open(t, targets)
		if got := late.told(); got != "" {
			t.Errorf("nothing was left: %s", got)
		}
	})
}

// TestResumeAtAnyMoment: runs that are killed at random, with what was stored of
// them at random moments before, lose nothing, and begin nothing out of order.
func TestResumeAtAnyMoment(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random, answers := rand.New(rand.NewPCG(seed, 7)), rand.New(rand.NewPCG(seed, 8)) // the target's own
			refused, newest := map[string]bool{}, map[string]uint64{}
			f := &fake{}
			f.answer = func(_ int, d Delivery) error {
				switch {
				case answers.IntN(3) == 0:
					return errors.New("away")
				case answers.IntN(12) == 0 && d.State == Plain:
					refused[d.ID] = true
					newest[d.Kind] = max(newest[d.Kind], d.position) // with those that it stands for
					return errRefused
				}
				return nil
			}
			var b book
			for range 8 {
				b.open(t, map[string]sender{"exec-a": f})
				for range random.IntN(12) {
					kind, state := fmt.Sprint(random.IntN(4)), Plain // some come again within their window
					if random.IntN(2) == 0 {
						kind = "alarm"
						if state = On; len(b.alarms) > 0 {
							state = Off
						}
					}
					if b.write(kind, state); state != Plain {
						b.alarms = nil
						if state == On {
							b.alarms = b.events[len(b.events)-1:]
						}
					}
					if time.Sleep(time.Duration(random.IntN(12)) * time.Second); random.IntN(3) == 0 {
						b.heard = b.current.Heard()
					}
				}
				b.end()
			}
			f.answer = nil
			b.open(t, map[string]sender{"exec-a": f})
			time.Sleep(time.Hour)
			synctest.Wait()
			told, stood := map[string]bool{}, Off
			for _, d := range f.got {
				if d.State != Plain && !told[d.ID] {
					if d.State == stood {
						t.Errorf("seed %d: the alarm is %s after %s", seed, d.State, stood)
					}
					stood = d.State
				}
				told[d.ID] = true
				newest[d.Kind] = max(newest[d.Kind], d.position)
			}
			for _, e := range b.events {
				// One that came again in its window is told with the last of them.
				if !told[e.ID] && !refused[e.ID] && (e.State != Plain || newest[e.Kind] <= e.Position) {
					t.Errorf("seed %d: %s, number %d, is not told: %s", seed, e.Kind, e.Position, f.told())
				}
			}
			if len(f.got) > 3*len(b.events) {
				t.Errorf("seed %d: %d deliveries of %d events", seed, len(f.got), len(b.events))
			}
		})
	}
}

// TestResumeOtherTargets: a target whose address was changed gets what it had
// not got under the old one, one that is gone is told to the owner, and one that
// is new, or has lost something, hears first which alarms stand.
func TestResumeOtherTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b book
		shut, open := door()
		open(false)
		b.open(t, map[string]sender{"webhook-typo": shut, "exec-old": shut})
		b.write("late", On)
		b.write("late", Off)
		b.write("long", On)
		b.alarms = []Event{b.events[2]}
		b.heard = b.current.Heard()
		if b.heard[0].Position != 0 {
			t.Fatalf("%+v", b.heard)
		}
		b.end()
		mended, fresh := &fake{}, &fake{}
		gone := b.open(t, map[string]sender{"webhook-right": mended, "syslog-new": fresh})
		if got := mended.told(); got != "lateon lateoff longon" {
			t.Errorf("the one with another address: %s", got)
		}
		if got := fresh.told(); got != "longon" {
			t.Errorf("the new one: %s", got)
		}
		if fmt.Sprint(gone) != "[{fake 3}]" {
			t.Errorf("gone: %v", gone)
		}
		b.write("long", Off)
		b.alarms = nil
		if got := fresh.told(); got != "longon longoff" {
			t.Errorf("the new one: %s", got)
		}
		b.heard = b.current.Heard()
		b.end()

		// One that is new, and away for two runs, still begins with the alarms.
		b.open(t, map[string]sender{"webhook-right": mended, "syslog-new": fresh})
		b.write("other", On)
		b.alarms = []Event{b.events[4]}
		b.heard = b.current.Heard()
		b.end()
		targets := map[string]sender{"webhook-right": mended, "syslog-new": fresh, "exec-away": shut}
		for i := range 2 {
			b.open(t, targets)
			if i == 0 {
				b.write("later", On)
				b.alarms = append(b.alarms, b.events[5])
			}
			b.heard = b.current.Heard()
			b.end()
		}
		b.open(t, targets)
		b.write("other", Off)
		b.alarms = nil
		b.write("last", Plain)
		open(true)
		time.Sleep(time.Hour)
		if got := shut.told(); got != "otheron lateron otheroff last" {
			t.Errorf("the one that was away from the beginning: %s", got)
		}
		if h := b.current.Heard()[0]; h.New || h.Position != 8 || h.Key != "exec-away" {
			t.Errorf("then: %+v", h)
		}
	})
}

// TestResumeOfAShorterLog: what the log has lost meanwhile counts as lost.
func TestResumeOfAShorterLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b book
		shut, open := door()
		b.open(t, map[string]sender{"exec-a": shut})
		b.write("early", Plain)
		open(false)
		b.write("stands", On)
		for i := range 5 {
			b.write(fmt.Sprint(i), Plain)
		}
		b.heard, b.alarms, b.first = b.current.Heard(), b.events[1:2], 4
		b.end()
		shut.forget()
		open(true)
		b.open(t, map[string]sender{"exec-a": shut})
		if got := shut.told(); got != "stands"+string(On)+"-3 2 3 4" {
			t.Errorf("told %s", got)
		}
		if s := b.current.Status()[0]; s.Lost != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// TestLossesAreToldAfterARestart: a loss that no delivery told of is told by the
// next run.
func TestLossesAreToldAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b book
		bad := true
		f := &fake{answer: func(_ int, d Delivery) error {
			if bad && d.Kind == "bad" {
				return errRefused
			}
			return nil
		}}
		b.open(t, map[string]sender{"exec-a": f})
		b.write("a", Plain)
		b.write("bad", Plain)
		b.heard = b.current.Heard()
		b.end()
		b.open(t, map[string]sender{"exec-a": f})
		b.write("b", Plain)
		if got := f.told(); got != "a b-1" {
			t.Error(got)
		}
		if h := b.current.Heard()[0]; h.Position != 3 {
			t.Errorf("%+v", h)
		}
	})
}

// TestResumeWithAWrongClock: events of a clock that was ahead hold nothing back.
func TestResumeWithAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := book{heard: []Heard{{Key: "exec-a", Kind: "exec"}}}
		b.events = []Event{{Kind: "again", Time: time.Now().Add(24 * time.Hour), ID: "id-1", Position: 1}}
		f := &fake{}
		b.open(t, map[string]sender{"exec-a": f})
		time.Sleep(window + time.Second)
		b.write("again", Plain)
		if got := f.told(); got != "again again" {
			t.Error(got)
		}
	})
}

func TestIdentity(t *testing.T) {
	c := Config{{Webhook: "https://x/?token=hidden"}, {Webhook: "https://x/?token=other"}, {Exec: "/a"}, {Syslog: true}, {Syslog: true}, {Webhook: "https://x/?token=hidden", Least: Alarm}}
	seen := map[string]bool{}
	for i := range c {
		kind, key := c.identity(i)
		if seen[key] || strings.Contains(key, "hidden") || !strings.HasPrefix(key, kind+"-") {
			t.Errorf("%d: %s %s", i, kind, key)
		}
		seen[key] = true
	}
	if _, key := c[1:].identity(0); !seen[key] {
		t.Error("a target is another one in another place of the list")
	}
}
