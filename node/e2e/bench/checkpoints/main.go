package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"time"

	"vmctl/node/e2e/bench/samples"
)

var (
	parts  = flag.String("parts", "copy,finders,pauses,many", "what to measure")
	rounds = flag.Int("rounds", 4, "rounds of checkpoints and savevm at every rate")
	budget = flag.Duration("for", time.Hour, "begin no round after so long; -append goes on later")
	more   = flag.Bool("append", false, "keep the samples that are there")
	span   = flag.Duration("time", 8*time.Second, "how long checkpoints are watched in a round")
	watch  = flag.Duration("watch", time.Minute, "how long the eight guests are watched")
	busy   = flag.Bool("busy", false, "the eight guests work, instead of being quiet")
	out    = flag.String("out", "bench/checkpoints", "the page's file and the samples', without .md and .jsonl")
)

func main() {
	flag.Parse()
	samples.Main("bench-checkpoints", run)
}

func run(ctx context.Context) (err error) {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "bench-checkpoints-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	return samples.Measure(*out, *more, func(raw string) error {
		return measure(ctx, &bench{root: root, work: work, raw: raw, began: time.Now()})
	}, report)
}

// bench is one invocation.
type bench struct {
	root, work string
	raw        string // where samples go
	began      time.Time
}

// keep adds a sample to those that the page is made of.
func (b *bench) keep(s Sample) error {
	s.Run, s.Time = b.began.UTC().Format(time.RFC3339), time.Now()
	return samples.Append(b.raw, s)
}

// path is a file of this invocation.
func (b *bench) path(name string) string { return filepath.Join(b.work, name) }
