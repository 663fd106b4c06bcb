package sim

import (
	"bytes"
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"vmctl/ha"
)

var (
	schedules = flag.Int("ha.schedules", 0, "number of fault schedules to play; 0: 2000, under the race detector 50")
	seed      = flag.Uint64("ha.seed", 1, "first seed; with -ha.schedules=1 that one is replayed with its log")
)

// TestSchedules plays random fault schedules. A failing seed is played again
// with its log.
func TestSchedules(t *testing.T) {
	count := *schedules
	if count == 0 {
		count = 2000
		if underRace {
			count = 50
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1600)) // worlds are small and short-lived
	begin := time.Now()
	total, bad := Sweep(*seed, uint64(count), runtime.GOMAXPROCS(0), func(s uint64) Options { return Options{Seed: s} })
	for _, f := range bad {
		t.Error(f.Err)
	}
	t.Logf("seeds %d..%d in %v: %s", *seed, *seed+uint64(total.Runs)-1, time.Since(begin).Round(time.Millisecond), total.Report(len(bad)))
	if total.FewestFaults < fewest && len(bad) == 0 {
		t.Errorf("a schedule had %d faults, want at least %d", total.FewestFaults, fewest)
	}
	if count >= 2000 && len(bad) == 0 {
		exercised(t, total)
	}
	if len(bad) > 0 {
		t.Logf("replay with: go test ./ha/sim -run TestSchedules -ha.schedules=1 -ha.seed=%d", bad[0].Seed)
		replay(t, bad[0].Seed)
	} else if count == 1 {
		replay(t, *seed)
	}
}

// TestSeedsThatFailedOnce plays what make soak has found.
func TestSeedsThatFailedOnce(t *testing.T) {
	for _, s := range []uint64{
		116312, // a late heartbeat brought a removed guest back
		390457, // an order to promote whose storing failed stood after a restart: nobody was told that it may
		775660, // a guest was made twice under one id, on both nodes: the simulated user repeated an order that was not answered yet
	} {
		if _, err := Run(Options{Seed: s}); err != nil {
			t.Error(err)
		}
	}
}

// exercised demands that the schedules led where the protocol is at stake.
func exercised(t *testing.T, s Stats) {
	for _, m := range mix {
		if n := s.Kinds[m.kind]; n < 10 && m.kind != LieStore && m.kind != ClockJump {
			t.Errorf("only %d faults of the kind %s", n, m.kind)
		}
	}
	for name, n := range map[string]int{
		"takeovers": s.TakeOvers, "promotions": s.Promotions, "handovers": s.Handovers, "yields": s.Yields,
		"detached": s.Detached, "attached": s.Attached, "claims": s.Claims, "refusals": s.Refusals,
		"store failures": s.PersistFailures, "frozen and thawed": s.Freezes, "changes of the mode": s.Rebinds,
		"resumed": s.Resumes, "restarted": s.Restarts, "checkpoints": s.Checkpoints, "boots": s.Starts,
		"kills for a stopped guard": s.AgentKills, "suspensions": s.Suspensions, "shots": s.Shots,
	} {
		if n < 10 {
			t.Errorf("only %d %s: the schedules prove too little", n, name)
		}
	}
}

// TestReplay: the same seed gives the same run, to the last line of the log.
func TestReplay(t *testing.T) {
	var a, b bytes.Buffer
	for _, log := range []*bytes.Buffer{&a, &b} {
		if _, err := Run(Options{Seed: 42, Log: log}); err != nil {
			t.Fatal(err)
		}
	}
	if a.Len() == 0 || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("two runs of one seed differ: %d and %d bytes of log", a.Len(), b.Len())
	}
}

// TestTakeoverTime: from a power cut to the order to resume, with production
// timing. The rest of the three seconds belongs to the restore. make sim does it
// at all these seeds, the race detector sees some.
func TestTakeoverTime(t *testing.T) {
	const bound = 2750 * time.Millisecond
	seeds := uint64(200)
	if underRace {
		seeds = 20
	}
	for s := range seeds {
		stats, err := Run(Options{
			Seed: s, Guests: 1, Mode: ha.ModeWitness, Length: 12 * time.Second, Quiet: true,
			Script: []Fault{
				{At: 5 * time.Second, Kind: PowerOff, Where: 0, For: 6 * time.Second},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if stats.LongestOutage > bound {
			t.Errorf("seed %d: the guest was away for %v, want at most %v", s, stats.LongestOutage, bound)
		}
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
