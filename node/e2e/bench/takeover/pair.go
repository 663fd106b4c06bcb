package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// patience bounds every wait for a host to come back or a guest to be covered.
const patience = 2 * time.Minute

// rate is how often in a second the guest gives a sign of life: its first one is
// seen that much late, on average half of it.
const rate = 200

// pair is two hosts with a guest protected by resume.
type pair struct {
	lab          *lab.Lab
	vm           api.VM
	owner, other *lab.Host
}

func newPair(ctx context.Context, binary string, files lab.GuestFiles) (_ *pair, err error) {
	l, err := lab.New(ctx, binary, func(string, ...any) {})
	if err != nil {
		return nil, err
	}
	p := &pair{lab: l, owner: l.A, other: l.B}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := l.Form(ctx); err != nil {
		return nil, err
	}
	line := strings.Replace(lab.BenchLine(), fmt.Sprintf("guest.rate=%d", lab.BenchRate), fmt.Sprintf("guest.rate=%d guest.every=%d", rate, rate/lab.BenchRate), 1)
	if p.vm, err = l.A.CreateBenchGuest(ctx, files, "--protection", "resume", "--append", line); err != nil {
		return nil, err
	}
	_, err = l.WaitAnswer(ctx, patience)
	return p, err
}

// cut cuts the owner's power while the guest has a standby, or has none, and
// brings it back.
func (p *pair) cut(ctx context.Context, standby bool) (s Sample, err error) {
	if err := p.prepare(ctx, standby); err != nil {
		return s, err
	}
	recorder, err := p.lab.Record(ctx, p.vm.UUID)
	if err != nil {
		return s, err
	}
	defer func() {
		if overlaps := recorder.Stop(); len(overlaps) > 0 {
			err = errors.Join(err, fmt.Errorf("two hosts executed the guest, or it is broken: %v", overlaps))
		}
	}()
	time.Sleep(time.Second + rand.N(500*time.Millisecond))
	s.Standby, s.Time = standby, time.Now()
	if err := p.owner.PowerCut(ctx); err != nil {
		return s, err
	}
	last, _, _ := recorder.Last()
	stint, err := recorder.WaitOn(ctx, p.other.Name, s.Time, patience)
	if err != nil {
		return s, err
	}
	if stint.Token != last.Token {
		return s, errors.New("this is not the guest that ran before")
	}
	decided, running, err := p.resumed(ctx, s.Time, standby)
	if err != nil {
		return s, err
	}
	s.Lease = milliseconds(decided.Sub(s.Time))
	s.Running, s.Output = milliseconds(running.Sub(decided)), milliseconds(stint.First.Sub(decided))
	if err := p.owner.PowerOn(ctx); err != nil {
		return s, err
	}
	p.owner, p.other = p.other, p.owner
	return s, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// prepare waits until the guest is covered, with a standby or without one: that
// is the only difference.
func (p *pair) prepare(ctx context.Context, standby bool) error {
	wanted := map[bool]string{false: "off", true: "ready"}[standby]
	if _, err := p.owner.CLI(ctx, "vm", "set", lab.GuestName, fmt.Sprintf("--standby=%t", standby)); err != nil {
		return err
	}
	if _, err := p.owner.WaitState(ctx, patience, lab.SyncedSince(time.Now())); err != nil {
		return err
	}
	return lab.Eventually(ctx, patience, func() error {
		out, err := p.owner.CLI(ctx, "--output", "json", "vm", "show", lab.GuestName)
		if err != nil {
			return err
		}
		var shown struct {
			Replica struct{ Standby string }
		}
		if err := json.Unmarshal([]byte(out), &shown); err != nil {
			return err
		}
		if shown.Replica.Standby != wanted {
			return fmt.Errorf("the guest's standby is %q, not %q", shown.Replica.Standby, wanted)
		}
		return nil
	})
}

// loading finds how long loading took in an event's text.
var loading = regexp.MustCompile(`in (\d+) ms`)

// resumed says when the other host had become the owner, for the lease had
// ended, and when it let the guest run.
func (p *pair) resumed(ctx context.Context, cut time.Time, standby bool) (decided, running time.Time, err error) {
	err = p.other.API().Events(ctx, api.EventFilter{VM: lab.GuestName, Since: cut}, func(e api.Event) error {
		match := loading.FindStringSubmatch(e.Message)
		if e.Kind != "guest-resumed" || match == nil {
			return nil
		}
		if strings.Contains(e.Message, "by its standby") != standby {
			return errors.New(e.Message)
		}
		ms, err := strconv.Atoi(match[1])
		running = e.Time.Time
		decided = running.Add(-time.Duration(ms) * time.Millisecond)
		return err
	})
	if err == nil && running.IsZero() {
		err = fmt.Errorf("host %s has no event of the resume", p.other.Name)
	}
	return decided, running, err
}
