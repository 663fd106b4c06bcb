package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/bench/caller"
	"vmctl/node/e2e/lab"
)

// patience bounds every wait for a host to come back or a guest to be covered.
const patience = 2 * time.Minute

// ours is a pair of vmctl with a witness and a guest protected by resume.
type ours struct {
	lab    *lab.Lab
	vm     api.VM
	caller *caller.Caller
	owner  *lab.Host
	other  *lab.Host
}

func newOurs(ctx context.Context, binary string, files lab.GuestFiles) (_ *ours, err error) {
	l, err := lab.New(ctx, binary, func(string, ...any) {})
	if err != nil {
		return nil, err
	}
	o := &ours{lab: l, owner: l.A, other: l.B}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if err := l.Form(ctx); err != nil {
		return nil, err
	}
	if o.vm, err = l.A.CreateBenchGuest(ctx, files, "--protection", "resume"); err != nil {
		return nil, err
	}
	if _, err := l.WaitAnswer(ctx, time.Minute); err != nil {
		return nil, err
	}
	if err := caller.Pin(ctx, l.SwitchNS(), "sw0", lab.GuestAddr); err != nil {
		return nil, err
	}
	if o.caller, err = caller.Start(ctx, l.SwitchNS(), lab.GuestAddr); err != nil {
		return nil, err
	}
	return o, o.synced(ctx)
}

// synced waits until the other host could go on with the guest as it is now.
func (o *ours) synced(ctx context.Context) error {
	_, err := o.owner.WaitState(ctx, patience, lab.SyncedSince(time.Now()))
	return err
}

func (o *ours) close() error {
	if o.caller != nil {
		o.caller.Stop()
	}
	return o.lab.Close()
}

// round cuts the owner's power at a random moment between two checkpoints, and
// brings it back.
func (o *ours) round(ctx context.Context) (s Sample, err error) {
	v, err := o.owner.Show(ctx)
	if err != nil {
		return s, err
	}
	interval := time.Duration(v.Protection.IntervalSeconds * float64(time.Second))
	seen, err := cutPower(ctx, o.lab, o.vm.UUID, o.caller, o.other, o.owner.PowerCut, time.Second+rand.N(3*interval))
	if err != nil {
		return s, err
	}
	if now := seen.answer.Proof; now.Token != seen.last.Token || now.Token != seen.before.Proof.Token || now.Broken {
		return s, fmt.Errorf("not the guest that ran before, or broken: it was %+v, is %+v", seen.last, now)
	}
	s = seen.sample(vmctl, o.owner, o.other)
	s.Lost = float64(max(0, int64(seen.last.Counter)-int64(seen.stint.From)+1)) / lab.BenchRate
	if s.Decided, s.Running, err = resumed(ctx, o.other, seen.cut); err != nil {
		return s, err
	}
	if err := o.owner.PowerOn(ctx); err != nil {
		return s, err
	}
	o.owner, o.other = o.other, o.owner
	return s, o.synced(ctx)
}

// loading finds how long loading took in an event's text.
var loading = regexp.MustCompile(`in (\d+) ms`)

// resumed says when a host began to load the guest and when it let it run.
func resumed(ctx context.Context, h *lab.Host, cut time.Time) (decided, running float64, err error) {
	err = h.API().Events(ctx, api.EventFilter{VM: lab.GuestName, Since: cut}, func(e api.Event) error {
		match := loading.FindStringSubmatch(e.Message)
		if e.Kind != "guest-resumed" || match == nil {
			return nil
		}
		ms, err := strconv.Atoi(match[1])
		at := time.Time(e.Time.Time)
		decided, running = since(cut, at.Add(-time.Duration(ms)*time.Millisecond)), since(cut, at)
		return err
	})
	if err == nil && running == 0 {
		err = fmt.Errorf("host %s has no event of the resume", h.Name)
	}
	return decided, running, err
}
