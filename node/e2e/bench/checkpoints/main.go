package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-checkpoints:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	raw := *out + ".jsonl"
	if !*more {
		if err := os.RemoveAll(raw); err != nil {
			return err
		}
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "bench-checkpoints-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := measure(ctx, &bench{root: root, work: work, raw: raw, began: time.Now()}); err != nil {
		return err
	}
	all, err := samples.Read[Sample](raw)
	if err != nil {
		return err
	}
	page := report(all)
	fmt.Print(page)
	return os.WriteFile(*out+".md", []byte(page), 0o644)
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
