package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmctl/node/e2e/bench/caller"
	"vmctl/node/e2e/lab"
)

// silence is one power cut as a client outside sees it.
type silence struct {
	cut    time.Time
	before caller.Answer
	answer caller.Answer // the first one after
	web    time.Time     // when HTTP was answered
	last   lab.Proof     // what the guest sent last before the cut
	stint  lab.Stint     // its first datagram after

	ran, waited time.Duration // of its vCPUs on the new host
}

// cutPower cuts the power of the host that runs the guest, a moment from now,
// and waits until the guest answers from the other one. The guest must not run on both.
func cutPower(ctx context.Context, l *lab.Lab, uuid string, calls *caller.Caller, to *lab.Host, cut func(context.Context) error, moment time.Duration) (s silence, err error) {
	recorder, err := l.Record(ctx, uuid)
	if err != nil {
		return s, err
	}
	defer func() {
		if overlaps := recorder.Stop(); len(overlaps) > 0 {
			err = errors.Join(err, fmt.Errorf("two hosts executed the guest, or it is broken: %v", overlaps))
		}
	}()
	time.Sleep(moment)
	s.before = calls.Last()
	s.cut = time.Now()
	if err := cut(ctx); err != nil {
		return s, err
	}
	s.last, _, _ = recorder.Last()
	if s.answer, err = calls.After(ctx, patience); err != nil {
		return s, err
	}
	s.ran, s.waited = vcpu(to.QEMU(ctx, uuid))
	if _, err := l.WaitAnswer(ctx, patience); err != nil {
		return s, err
	}
	s.web = time.Now()
	s.stint, err = recorder.WaitOn(ctx, to.Name, s.cut, patience)
	return s, err
}

// sample is what all contestants have.
func (s silence) sample(who string, from, to *lab.Host) Sample {
	return Sample{Of: who, Time: s.cut, From: from.Name, To: to.Name, Answer: since(s.cut, s.answer.At), HTTP: since(s.cut, s.web),
		Record: since(s.cut, s.stint.First), Ran: seconds(s.ran), Waited: seconds(s.waited)}
}
