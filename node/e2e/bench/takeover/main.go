package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vmctl/node/e2e/bench/samples"
	"vmctl/node/e2e/lab"
)

var (
	rounds = flag.Int("rounds", 30, "make so many rounds, of one power cut with a standby and one without")
	budget = flag.Duration("for", time.Hour, "begin no round after so long; -append goes on later")
	more   = flag.Bool("append", false, "keep the samples that are there")
	out    = flag.String("out", "bench/takeover", "the page's file and the samples', without .md and .jsonl")
)

func main() {
	flag.Parse()
	samples.Main("bench-takeover", run)
}

func run(ctx context.Context) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	binary, files, err := lab.Build(ctx, root, filepath.Join(root, "dist"))
	if err != nil {
		return err
	}
	return samples.Measure(*out, *more, func(raw string) error { return measure(ctx, binary, files, raw) }, report)
}

// measure makes rounds until there are enough samples or the time is over.
func measure(ctx context.Context, binary string, files lab.GuestFiles, raw string) (err error) {
	began := time.Now()
	done, err := samples.Read[Sample](raw)
	if err != nil {
		return err
	}
	round := 0
	if n := len(done); n > 0 {
		round = done[n-1].Round + 1
	}
	if round >= *rounds {
		return nil // only the page is made anew
	}
	p, err := newPair(ctx, binary, files)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.lab.Close()) }()
	for ; round < *rounds && time.Since(began) < *budget; round++ {
		for _, standby := range []bool{round%2 == 0, round%2 != 0} { // nobody is always first
			s, err := p.cut(ctx, standby)
			if err != nil {
				return fmt.Errorf("round %d, standby %t: %w", round, standby, err)
			}
			s.Run, s.Round = began.UTC().Format(time.RFC3339), round
			if err := samples.Append(raw, s); err != nil {
				return err
			}
			fmt.Printf("round %d, standby %t: running after %.0f ms, first output after %.0f ms\n", s.Round, s.Standby, s.Running, s.Output)
		}
	}
	return nil
}
