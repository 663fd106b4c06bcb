package snapshot

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// returnBound is how long a guest's writes may wait for QEMU to find the socket of
// an agent that has just started: it tries after 1, 2, 4 and 8 s. An agent that was
// away for less than the first pause must not miss it, so it waits for all of that,
// and for what comes then: to connect, and to send the write again.
const (
	returnBound = firstTry + 250*time.Millisecond
	firstTry    = time.Second
	returnLook  = 20 * time.Millisecond
)

// KeepMirror goes on with the mirrors of an earlier process, whose dirty map was
// loaded: nothing is made anew, and nothing went past them. An error means that
// this cannot be said, and StartMirror is due. The replica must be outdated durably:
// what QEMU has held back goes on at once, recorded, and waits for no link.
//
// QEMU holds a write back whose mirror is away, and sends it again to whoever
// serves the socket next. If that takes longer than reconnectDelay the job fails,
// and stays so, which Check sees. A disk whose mirror has not connected yet is good
// if no write of it is under way: the next one connects.
func (p *Protector) KeepMirror(ctx context.Context) error {
	if p.replicator == nil {
		return nil
	}
	p.replicator.NoteOutdated()
	for began := time.Now(); ; {
		loaded, missing := p.replicator.Loaded()
		if !loaded {
			return fmt.Errorf("keep the disks' mirrors: it is not known what was written meanwhile")
		}
		waiting, err := p.config.Mirror.kept(ctx, missing)
		if err != nil {
			return fmt.Errorf("keep the disks' mirrors: %w", err)
		}
		if waiting == "" {
			return nil
		}
		if time.Since(began) > returnBound {
			return fmt.Errorf("keep the disks' mirrors: a write to disk %s waits for QEMU to come back", waiting)
		}
		select {
		case <-time.After(returnLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// kept says whether the mirrors are good, and which of the disks whose mirror has
// not connected has writes under way.
func (m *Mirror) kept(ctx context.Context, missing []string) (waiting string, err error) {
	if err := m.Check(ctx); err != nil {
		return "", err
	}
	var exports []struct{ ID string }
	if err := m.Monitor.Execute(ctx, "query-block-exports", nil, &exports); err != nil {
		return "", err
	}
	jobs, err := m.jobs(ctx)
	if err != nil {
		return "", err
	}
	for i, d := range m.Disks {
		if !slices.ContainsFunc(exports, func(e struct{ ID string }) bool { return e.ID == "ex-"+d.Base }) {
			return "", fmt.Errorf("disk %s is not exported", d.Name)
		}
		n := slices.IndexFunc(jobs, func(j blockJob) bool { return j.Device == mirrorJob(i) })
		if n < 0 {
			return "", fmt.Errorf("disk %s: %w", d.Name, ErrMirror)
		}
		if slices.Contains(missing, d.Name) && jobs[n].Len != jobs[n].Offset {
			waiting = d.Name
		}
	}
	return waiting, nil
}
