package node

import (
	"log/slog"
	"testing"
	"testing/synctest"

	"vmctl/ha/recovery"
)

// TestStopOfWhatIsBeingStarted: who stops a guest that is being started, by a takeover
// for example, gets what comes of it, and no start begins after that.
func TestStopOfWhatIsBeingStarted(t *testing.T) {
	for name, comes := range map[string]*machine{"it comes up": {}, "it fails": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuest(&Node{log: slog.New(slog.DiscardHandler)}, "u", guestRecord{Run: true}, placeRecord{})
				plan := &recovery.Start{}
				g.locked(func() { g.plan = plan })
				if !g.begin(plan) {
					t.Fatal("an allowed start does not begin")
				}
				g.locked(func() { g.record.Run = false }) // the user's word
				got, done := (*machine)(nil), make(chan struct{})
				go func() {
					defer close(done)
					var err error
					if got, err = g.risen(t.Context()); err != nil {
						t.Error(err)
					}
				}()
				for _, step := range []func(){
					func() { g.seen = true }, // nothing was left by an earlier agent
					func() { g.status.failure = "not yet" },
				} {
					g.locked(step)
					synctest.Wait()
					select {
					case <-done:
						t.Fatal("nothing is said to run while a start is under way")
					default:
					}
				}
				g.locked(func() { g.machine, g.status.starting = comes, false })
				<-done
				if got != comes {
					t.Errorf("got %v, want %v", got, comes)
				}
				g.locked(func() { g.machine, g.plan = nil, plan })
				if g.begin(plan) {
					t.Error("a start that was allowed before the stop begins after it")
				}
			})
		})
	}
}
