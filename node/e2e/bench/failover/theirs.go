package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"vmctl/node/e2e/bench/caller"
	"vmctl/node/e2e/bench/pacemaker"
	"vmctl/node/e2e/lab"
)

// theirs is a pair of pacemaker with the same guest.
type theirs struct {
	pair   *pacemaker.Pair
	caller *caller.Caller
	tuned  bool // the timing of the next round
}

// timings by tuned.
var timings = map[bool]pacemaker.Timing{false: pacemaker.Defaults, true: pacemaker.Tuned}

func newTheirs(ctx context.Context, tree string, files lab.GuestFiles, tuned bool) (_ *theirs, err error) {
	pair, err := pacemaker.New(ctx, tree, files, timings[tuned])
	if err != nil {
		return nil, err
	}
	t := &theirs{pair: pair, tuned: tuned}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if _, err := pair.WaitAnswer(ctx, time.Minute); err != nil {
		return nil, fmt.Errorf("pacemaker's guest does not answer: %w: %s", err, pair.Journal(ctx, pair.A, 40))
	}
	if err := caller.Pin(ctx, pair.SwitchNS(), "sw0", lab.GuestAddr); err != nil {
		return nil, err
	}
	t.caller, err = caller.Start(ctx, pair.SwitchNS(), lab.GuestAddr)
	return t, err
}

func (t *theirs) close() error {
	if t.caller != nil {
		t.caller.Stop()
	}
	return t.pair.Close()
}

// round cuts the power of the host that runs the guest and brings it back, with
// the other timing.
func (t *theirs) round(ctx context.Context) (s Sample, err error) {
	owner, other, err := t.pair.Owner(ctx)
	if err != nil {
		return s, err
	}
	cut := func(ctx context.Context) error { return t.pair.PowerCut(ctx, owner) }
	seen, err := cutPower(ctx, t.pair.Lab, pacemaker.UUID, t.caller, other, cut, time.Second+rand.N(2*time.Second))
	if err != nil {
		return s, fmt.Errorf("%w\n%s", err, t.pair.Journal(ctx, other, 60))
	}
	before, now := seen.before.Proof, seen.answer.Proof
	if now.Token == before.Token || now.Boots != before.Boots+1 || now.Broken {
		return s, fmt.Errorf("this guest was not booted once more, or it is broken: it was %+v, is %+v", before, now)
	}
	s = seen.sample(map[bool]string{false: pacemakerDefault, true: pacemakerTuned}[t.tuned], owner, other)
	s.Lost = float64(before.Counter) / lab.BenchRate
	offs := t.pair.Offs(seen.cut)
	if len(offs) == 0 || offs[0].Host != owner.Name || offs[0].WasOn {
		return s, fmt.Errorf("host %s should have been fenced, once: %+v", owner.Name, offs)
	}
	s.Fencing, s.Fenced = since(seen.cut, offs[0].Asked), since(seen.cut, offs[0].Answered)
	started, err := t.pair.Started(ctx, other)
	if err != nil {
		return s, err
	}
	s.Running = since(seen.cut, started)
	return s, t.comeBack(ctx, owner, other)
}

// comeBack changes the timing and boots the host that was off.
func (t *theirs) comeBack(ctx context.Context, h, other *lab.Host) error {
	t.tuned = !t.tuned
	if err := t.pair.SetTiming(ctx, other, timings[t.tuned]); err != nil {
		return err
	}
	if err := t.pair.PowerOn(ctx, h); err != nil {
		return err
	}
	return t.pair.Settled(ctx, other)
}
