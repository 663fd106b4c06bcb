package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vmctl/node/e2e/bench/pacemaker"
	"vmctl/node/e2e/bench/samples"
	"vmctl/node/e2e/lab"
)

var (
	rounds = flag.Int("rounds", 20, "make so many rounds; a round is two power cuts of ours and one of theirs")
	budget = flag.Duration("for", time.Hour, "begin no round after so long; -append goes on later")
	more   = flag.Bool("append", false, "keep the samples that are there")
	alone  = flag.Bool("alone", false, "measure ours only")
)

func main() {
	flag.Parse()
	samples.Main("bench-failover", run)
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
	var tree, versions string
	if !*alone {
		if tree, err = pacemaker.Tree(ctx, filepath.Join(root, ".cache", "pacemaker")); err != nil {
			return err
		}
		if versions, err = pacemaker.Versions(ctx, tree); err != nil {
			return err
		}
	}
	return samples.Measure(filepath.Join(root, "bench", "failover"), *more,
		func(raw string) error { return measure(ctx, binary, tree, files, raw) },
		func(all []Sample) string { return report(all, versions) })
}

// measure makes rounds until there are enough samples or the time is over. The
// contestants take turns, so that a busy minute of the machine hits all.
func measure(ctx context.Context, binary, tree string, files lab.GuestFiles, raw string) (err error) {
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
	o, err := newOurs(ctx, binary, files)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	turns := []func(context.Context) (Sample, error){o.round, o.round}
	if !*alone {
		t, err := newTheirs(ctx, tree, files, count(done, pacemakerDefault) > count(done, pacemakerTuned))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.close()) }()
		turns = append(turns, t.round)
	}
	for ; round < *rounds && time.Since(began) < *budget; round++ {
		for _, turn := range turns {
			s, err := turn(ctx)
			if err != nil {
				return err
			}
			s.Run, s.Round = began.UTC().Format(time.RFC3339), round
			if err := samples.Append(raw, s); err != nil {
				return err
			}
			fmt.Printf("round %d: %s, power cut on %s: answers after %.2f s, %.2f s of work lost\n", round, s.Of, s.From, s.Answer, s.Lost)
		}
	}
	return nil
}

func count(list []Sample, of string) (n int) {
	for _, s := range list {
		if s.Of == of {
			n++
		}
	}
	return n
}
