package snapshot

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPausesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns()
		var mu sync.Mutex
		stopped, most := 0, 0
		count := func(by int) {
			mu.Lock()
			defer mu.Unlock()
			stopped += by
			most = max(most, stopped)
		}
		began := time.Now()
		var guests sync.WaitGroup
		for range 8 {
			guests.Go(func() {
				release := turns.take(t.Context())
				count(1)
				time.Sleep(20 * time.Millisecond)
				count(-1)
				release()
			})
		}
		guests.Wait()
		if took := time.Since(began); most != 1 || took != 160*time.Millisecond {
			t.Errorf("%d guests stopped at once, in %v", most, took)
		}
	})
}

func TestATurnThatHangsHoldsUpNobodyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns()
		hanging := turns.take(t.Context())
		began := time.Now()
		turns.take(t.Context())() // without the turn: ends nobody else's
		if waited := time.Since(began); waited != turnPatience {
			t.Errorf("waited %v", waited)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began = time.Now()
		turns.take(ctx)()
		if time.Since(began) != 0 {
			t.Error("waited although the caller has gone")
		}
		hanging()
		turns.take(t.Context())()
		if time.Since(began) != 0 {
			t.Error("the turn was not given back")
		}
	})
}
