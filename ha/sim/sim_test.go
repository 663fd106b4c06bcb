package sim

import (
	"bytes"
	"flag"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	schedules = flag.Int("ha.schedules", 2000, "number of fault schedules to play")
	seed      = flag.Uint64("ha.seed", 1, "first seed; with -ha.schedules=1 that one is replayed with its log")
)

// TestSchedules plays random fault schedules. A failing seed is played again
// with its log.
func TestSchedules(t *testing.T) {
	var (
		next  atomic.Uint64
		mu    sync.Mutex
		total Stats
		wait  sync.WaitGroup
		bad   []uint64
	)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= uint64(*schedules) {
					return
				}
				stats, err := Run(Options{Seed: *seed + n})
				mu.Lock()
				total.Add(stats)
				if err != nil {
					bad = append(bad, *seed+n)
					t.Error(err)
				}
				stop := len(bad) >= 5
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d schedules: %+v", *schedules, total)
	if len(bad) > 0 {
		t.Logf("replay with: go test ./ha/sim -run TestSchedules -ha.schedules=1 -ha.seed=%d", bad[0])
	}
	if *schedules == 1 || len(bad) > 0 {
		s := *seed
		if len(bad) > 0 {
			s = bad[0]
		}
		replay(t, s)
	}
}

func replay(t *testing.T, seed uint64) {
	var log bytes.Buffer
	_, err := Run(Options{Seed: seed, Log: &log})
	file, ferr := os.CreateTemp("", "ha-sim-*.log")
	if ferr != nil {
		t.Fatal(ferr)
	}
	defer file.Close()
	if _, werr := file.Write(log.Bytes()); werr != nil {
		t.Fatal(werr)
	}
	t.Logf("seed %d: %v; log of %d bytes in %s", seed, err, log.Len(), file.Name())
}
