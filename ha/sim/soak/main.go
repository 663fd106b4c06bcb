package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"vmctl/ha/sim"
)

// state is what has been played.
type state struct {
	From, Next uint64
	Busy       time.Duration
	Stats      sim.Stats
}

// block is how many schedules are played between two looks at the state file.
const block = 1000

func main() {
	from := flag.Uint64("from", 1, "the first seed")
	count := flag.Uint64("count", 1_000_000, "how many schedules")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "how many at a time")
	path := flag.String("state", "", "file that keeps the sums; empty: none")
	resume := flag.Bool("resume", false, "go on where the state file ends")
	flag.Parse()
	debug.SetGCPercent(400) // worlds are small and short-lived
	if err := soak(*from, *count, *workers, *path, *resume); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(from, count uint64, workers int, path string, resume bool) error {
	s := state{From: from, Next: from}
	if resume {
		if err := s.load(path); err != nil {
			return err
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	said := time.Now()
	for end := s.From + count; s.Next < end; {
		n, begin := min(block, end-s.Next), time.Now()
		stats, bad := sim.Sweep(s.Next, n, workers, func(seed uint64) sim.Options { return sim.Options{Seed: seed} })
		if len(bad) > 0 {
			for _, f := range bad {
				fmt.Printf("VIOLATION %v\n  replay: go test ./ha/sim -run TestSchedules -ha.schedules=1 -ha.seed=%d\n", f.Err, f.Seed)
			}
			return fmt.Errorf("%d violations in seeds %d..%d, after %d schedules without", len(bad), s.Next, s.Next+n-1, s.Next-s.From)
		}
		s.Stats.Add(stats)
		s.Next += n
		s.Busy += time.Since(begin)
		if err := s.save(path); err != nil {
			return err
		}
		if time.Since(said) > 20*time.Second {
			said = time.Now()
			fmt.Printf("%d of %d schedules, %.0f/s\n", s.Next-s.From, count, float64(s.Next-s.From)/s.Busy.Seconds())
		}
		select {
		case <-stop:
			s.print()
			return errors.New("interrupted; go on with -resume")
		default:
		}
	}
	s.print()
	return nil
}

func (s *state) print() {
	fmt.Printf("seeds %d..%d in %v, %.0f schedules/s\n%s", s.From, s.Next-1, s.Busy.Round(time.Second),
		float64(s.Next-s.From)/s.Busy.Seconds(), s.Stats.Report(0))
}

func (s *state) load(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err != nil {
		return fmt.Errorf("go on from the state file: %w; remove it to begin anew", err)
	}
	return nil
}

func (s *state) save(path string) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("keep the sums: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("keep the sums: %w", err)
	}
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return fmt.Errorf("keep the sums: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keep the sums: %w", err)
	}
	return nil
}
