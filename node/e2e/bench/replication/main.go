package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"vmctl/node/e2e/bench/samples"
)

var (
	rounds  = flag.Int("rounds", 15, "make so many rounds; in a round every way of replicating has its turn")
	budget  = flag.Duration("for", time.Hour, "begin no round after so long; -append goes on later")
	more    = flag.Bool("append", false, "keep the samples that are there")
	turn    = flag.Duration("turn", time.Second, "how long one load writes at a time")
	size    = flag.Int64("size", 256, "the MiB of the disk below the guest")
	dir     = flag.String("dir", "/dev/shm", "where the disks are; in memory, replication costs most against the writing itself")
	part    = flag.String("part", "", "measure only below the guest (blocks) or only in it (guest)")
	out     = flag.String("out", "bench/replication", "the page's file and the samples', without .md and .jsonl")
	against = flag.String("against", "", "another build of this program, whose two sides have turns too")
	ways    = flag.String("ways", "", "only these ways of replicating (a regular expression)")
	writes  = flag.String("loads", "", "only these loads (a regular expression)")
	profile = flag.String("profile", "", "leave CPU profiles of our two processes in this directory")
)

func main() {
	flag.Parse()
	run := measureAll
	switch os.Getenv(roleVariable) {
	case roleOwner:
		run = owner
	case rolePeer:
		run = follow
	case roleCopier:
		run = copier
	}
	samples.Main("bench-replication", run)
}

func measureAll(ctx context.Context) error {
	return samples.Measure(*out, *more, func(raw string) error { return measure(ctx, raw) }, report)
}

// measure makes rounds until there are enough samples or the time is over. In
// each, everyone has a turn, so that a busy minute of the machine hits all.
func measure(ctx context.Context, raw string) (err error) {
	work, err := os.MkdirTemp(*dir, "bench-replication-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	began := time.Now()
	for _, p := range []struct {
		name string
		open func(context.Context, string) (rig, error)
	}{{partBlocks, newBlocks}, {partGuest, newInGuest}} {
		if *part != "" && *part != p.name {
			continue
		}
		if err := measurePart(ctx, raw, p.name, began, func() (rig, error) { return p.open(ctx, filepath.Join(work, p.name)) }); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// rig is a place where loads are run while a way of replicating is on.
type rig interface {
	arms() []string
	loads() []load
	// start turns a way of replicating on, stop off again.
	start(ctx context.Context, arm string) error
	stop(ctx context.Context, arm string) error
	run(ctx context.Context, l load, turn time.Duration) (result, error)
	// processes are those whose processor time counts; none: it is not known.
	processes() []process
	close() error
}

func measurePart(ctx context.Context, raw, name string, began time.Time, open func() (rig, error)) (err error) {
	done, err := samples.Read[Sample](raw)
	if err != nil {
		return err
	}
	round := 0
	for _, s := range done {
		if s.Part == name {
			round = max(round, s.Round+1)
		}
	}
	if round >= *rounds {
		return nil
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for ; round < *rounds && time.Since(began) < *budget; round++ {
		arms := matching(r.arms(), *ways, func(arm string) string { return arm })
		for i := range arms {
			arm := arms[(i+round)%len(arms)] // nobody is always first
			if err := measureArm(ctx, r, raw, Sample{Run: began.UTC().Format(time.RFC3339), Part: name, Round: round, Arm: arm}); err != nil {
				return fmt.Errorf("%s: %w", arm, err)
			}
		}
	}
	return nil
}

// matching are those whose name matches.
func matching[T any](all []T, pattern string, name func(T) string) []T {
	wanted := regexp.MustCompile(pattern)
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return !wanted.MatchString(name(one)) })
}

// undoBound is how long it may take to turn a way of replicating off.
const undoBound = 30 * time.Second

func measureArm(ctx context.Context, r rig, raw string, s Sample) (err error) {
	if err := r.start(ctx, s.Arm); err != nil {
		return err
	}
	defer func() { // also when it was interrupted
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
		defer cancel()
		err = errors.Join(err, r.stop(undo, s.Arm))
	}()
	for _, l := range matching(r.loads(), *writes, func(l load) string { return l.name }) {
		before, err := processorOf(r.processes())
		if err != nil {
			return err
		}
		done, err := r.run(ctx, l, *turn)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		after, err := processorOf(r.processes())
		if err != nil {
			return err
		}
		parts, all := after.since(before)
		done.CPU = float64(all.Microseconds()) / float64(max(done.Ops, 1))
		s.Time, s.Load, s.result = time.Now(), l.name, done
		if err := samples.Append(raw, s); err != nil {
			return err
		}
		fmt.Printf("%s round %d, %s, %s: %.0f a second, median %.0f us; processor, us a write: %s\n", s.Part, s.Round, s.Arm, s.Load, s.rate(), s.Median,
			after.text(parts, done.Ops))
	}
	return nil
}
