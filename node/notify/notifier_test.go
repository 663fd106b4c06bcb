package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var silent = slog.New(slog.DiscardHandler)

// fake is a target that does what a test says.
type fake struct {
	answer func(attempt int, d Delivery) error // nil: takes everything
	hang   bool

	mu       sync.Mutex
	attempts int
	times    []time.Time
	got      []Delivery
}

func (f *fake) name() string { return "fake" }

func (f *fake) send(ctx context.Context, d Delivery) error {
	if f.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts++
	f.times = append(f.times, time.Now())
	if f.answer != nil {
		if err := f.answer(f.attempts, d); err != nil {
			return err
		}
	}
	f.got = append(f.got, d)
	return nil
}

// told is what was delivered, in short.
func (f *fake) told() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var words []string
	for _, d := range f.got {
		word := d.Kind + string(d.State)
		if d.VM != "" {
			word = d.VM + "/" + word
		}
		if d.Repeated > 0 {
			word += fmt.Sprintf("*%d", d.Repeated)
		}
		if d.Dropped > 0 {
			word += fmt.Sprintf("-%d", d.Dropped)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = nil
}

func (n *Notifier) windows() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.repeats.seen)
}

// start runs a notifier in a bubble of synctest; it ends with the test.
func start(t *testing.T, senders ...sender) *Notifier {
	ctx, cancel := context.WithCancel(t.Context())
	n := newNotifier(senders, silent)
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return n
}

func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		n := start(t, f)
		say := func(kind, vm, message string, state State) {
			n.Notify(Event{Kind: kind, VM: vm, Message: message, State: state})
			synctest.Wait()
		}
		say("crash", "a", "1", Plain)
		say("crash", "b", "1", Plain)
		say("crash", "a", "2", Plain)
		say("crash", "a", "3", Plain)
		if got := f.told(); got != "a/crash b/crash" {
			t.Fatalf("within the window: %s", got)
		}
		time.Sleep(window + time.Second)
		synctest.Wait()
		if got := f.told(); got != "a/crash b/crash a/crash*1" || f.got[2].Message != "3" {
			t.Fatalf("after the window: %s, %+v", got, f.got[2])
		}
		say("crash", "a", "4", Plain)
		if got := f.told(); got != "a/crash b/crash a/crash*1" {
			t.Fatalf("the summary begins a window: %s", got)
		}
		time.Sleep(3 * window)
		f.forget()
		say("crash", "a", "5", Plain)
		if got := f.told(); got != "a/crash" {
			t.Fatalf("long after: %s", got)
		}
		// An alarm that flaps is told each time, one that is raised twice is not.
		f.forget()
		for _, state := range []State{On, On, Off, On, Off, Off, Off} {
			say("lost", "", "peer", state)
		}
		if got := f.told(); got != "loston lostoff*1 loston lostoff" {
			t.Fatalf("an alarm: %s", got)
		}
		time.Sleep(window + time.Second)
		synctest.Wait()
		if got := f.told(); got != "loston lostoff*1 loston lostoff lostoff*1" {
			t.Errorf("after the alarm's window: %s", got)
		}
		if n.windows() != 1 { // the summary's own window
			t.Errorf("%d windows", n.windows())
		}
		time.Sleep(2 * window)
		synctest.Wait()
		if n.windows() != 0 {
			t.Errorf("%d windows are kept", n.windows())
		}
	})
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(attempt int, _ Delivery) error {
			switch {
			case attempt == 10:
				return after{errors.New("busy"), 200 * time.Second}
			case attempt <= 11:
				return errors.New("away")
			}
			return nil
		}}
		other := &fake{}
		n := start(t, f, other)
		n.Notify(Event{Kind: "lost", State: On})
		n.Notify(Event{Kind: "lost", State: Off})
		synctest.Wait()
		if other.told() != "loston lostoff" {
			t.Errorf("a target waits for another: %s", other.told())
		}
		time.Sleep(time.Hour)
		if got := f.told(); got != "loston lostoff" || f.attempts != 13 {
			t.Fatalf("%s after %d attempts", got, f.attempts)
		}
		if f.got[0].ID == f.got[1].ID || f.got[0].ID != other.got[0].ID {
			t.Errorf("ids %s %s %s", f.got[0].ID, f.got[1].ID, other.got[0].ID)
		}
		pause := firstPause
		for i := 1; i < 12; i++ {
			least, most := pause/2, pause
			if i == 10 {
				least, most = 200*time.Second, 200*time.Second
			}
			if waited := f.times[i].Sub(f.times[i-1]); waited < least || waited > most {
				t.Errorf("pause %d: %v, want %v to %v", i, waited, least, most)
			}
			pause = min(2*pause, lastPause)
		}
	})
}

func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(_ int, d Delivery) error {
			if d.Kind == "bad" {
				return fmt.Errorf("%w: 400", errRefused)
			}
			return nil
		}}
		n := start(t, f)
		for _, kind := range []string{"a", "bad", "b", "c"} {
			n.Notify(Event{Kind: kind})
		}
		synctest.Wait()
		if got := f.told(); got != "a b-1 c" {
			t.Error(got)
		}
	})
}

// TestOverflow: a target that is away for long loses plain events, is told how
// many, and hears both ends of every alarm it hears of.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		f := &fake{answer: func(int, Delivery) error {
			if away {
				return errors.New("away")
			}
			return nil
		}}
		n := start(t, f)
		n.Notify(Event{Kind: "first"})
		synctest.Wait() // it is being delivered: not to be lost
		n.Notify(Event{Kind: "lost", State: On})
		for i := range 2 * mostQueued {
			n.Notify(Event{Kind: fmt.Sprint(i)})
		}
		n.Notify(Event{Kind: "lost", State: Off})
		f.mu.Lock()
		away = false
		f.mu.Unlock()
		time.Sleep(time.Hour)
		words := strings.Fields(f.told())
		lost := 2*mostQueued + 3 - mostQueued
		if len(words) != mostQueued || words[0] != "first" || words[1] != fmt.Sprintf("loston-%d", lost) || words[len(words)-1] != "lostoff" {
			t.Errorf("%d: %v ... %v", len(words), words[:3], words[len(words)-2:])
		}
		total := len(f.got)
		for _, d := range f.got {
			total += d.Dropped
		}
		if total != 2*mostQueued+3 {
			t.Errorf("%d delivered or told to be lost", total)
		}
	})
}

// TestAlarmsInAFullQueue: whatever is lost, what a target hears of an alarm
// alternates, and its last word is the truth.
func TestAlarmsInAFullQueue(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 1))
		var q queue
		heard, truth := map[string]State{}, map[string]State{}
		sent, got, dropped := 0, 0, 0
		take := func() {
			d, ok := q.take()
			if !ok {
				return
			}
			if d.State == heard[d.Kind] || d.State == Off && heard[d.Kind] == Plain {
				t.Fatalf("seed %d: %s is told %q after %q", seed, d.Kind, d.State, heard[d.Kind])
			}
			heard[d.Kind] = d.State
			q.done(d, false)
			got++
			dropped += d.Dropped
		}
		for range 6 * mostQueued {
			kind := fmt.Sprint(random.IntN(700))
			if truth[kind] = map[State]State{Plain: On, On: Off, Off: On}[truth[kind]]; random.IntN(10) == 0 {
				take()
			}
			q.add(Delivery{Kind: kind, State: truth[kind]})
			sent++
			if len(q.items) > 2*700 {
				t.Fatalf("seed %d: %d are queued", seed, len(q.items))
			}
		}
		for len(q.items) > 0 {
			take()
		}
		for kind, state := range truth {
			if heard[kind] != state && !(heard[kind] == Plain && state == Off) {
				t.Errorf("seed %d: %s is %q, told %q", seed, kind, state, heard[kind])
			}
		}
		if dropped+q.dropped+got != sent || q.dropped+dropped == 0 {
			t.Errorf("seed %d: %d sent, %d got, %d lost", seed, sent, got, dropped+q.dropped)
		}
	}
}

// TestNeverBlocks: no target is asked while Notify runs, and Run ends with ctx
// though targets hang.
func TestNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := newNotifier([]sender{&fake{hang: true}, &fake{answer: func(int, Delivery) error { return errors.New("away") }}}, silent)
		began := time.Now()
		for i := range 10000 {
			n.Notify(Event{Kind: fmt.Sprint(i)})
		}
		var running sync.WaitGroup
		running.Go(func() { n.Run(ctx) })
		synctest.Wait()
		n.Notify(Event{Kind: "last"})
		cancel()
		running.Wait()
		n.Notify(Event{Kind: "after"})
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

func TestTidy(t *testing.T) {
	e := Event{Kind: "a\nb", VM: strings.Repeat("ü", 300), Message: "one\ntwo\x00\x1b[31m\xff" + strings.Repeat("x", 5000)}.tidy()
	if e.Kind != "a b" || len(e.VM) > mostWord+3 || !strings.HasPrefix(e.Message, "one\ntwo  [31m?x") || len(e.Message) > mostMessage+3 {
		t.Errorf("%+v", e)
	}
}
