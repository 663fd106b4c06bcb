package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"vmctl/node/api"
	"vmctl/snapshot/replica"
	"vmctl/vm"
	"vmctl/vm/guard"
)

// spare is a QEMU that waits beside the replica for the guest's state: started
// with the replica's memory and disks, it executes nothing before a takeover has
// put it under the new epoch. Checkpoints are applied under it meanwhile. It is
// owned by the guest's goroutine.
type spare struct {
	*machine
	born     time.Time
	hardware string                 // hash of the spec it was started with
	files    map[string]os.FileInfo // memory, disks and QEMU's program, as they were opened
}

// sparing is what people see of it, on both nodes.
type sparing struct {
	State  string `msgpack:"state"` // api.StandbyReady and others; empty: not looked yet
	Reason string `msgpack:"reason"`
}

// Back-off between two starts of a standby that does not stay.
const (
	firstSpare = time.Second
	lastSpare  = 30 * time.Second
)

// spareEnds is how long a killed standby may take to be gone.
const spareEnds = 15 * time.Second

// keepSpare keeps a standby beside the replica, until ctx ends. One that is
// ready then is left to the caller.
func (g *guest) keepSpare(ctx context.Context) {
	ticker := time.NewTicker(candidateEvery)
	defer ticker.Stop()
	wait, hold := firstSpare, time.Time{}
	for {
		at, reason := g.spareBase(ctx)
		if ctx.Err() == nil {
			g.fitSpare(at, reason)
		}
		var dead <-chan struct{}
		if g.spare != nil {
			dead = g.spare.ended()
		}
		switch {
		case ctx.Err() != nil:
			return
		case reason != "":
			g.tellSpare(api.StandbyOff, reason)
		case g.spare == nil && time.Now().After(hold):
			if err := g.startSpare(ctx, at); err == nil {
				continue
			} else if ctx.Err() == nil {
				g.spareFailed(fmt.Errorf("it was not started: %w", err))
				hold, wait = time.Now().Add(wait), min(2*wait, lastSpare)
			}
		}
		select {
		case <-ticker.C:
		case <-dead:
			end, _ := g.spare.end()
			if time.Since(g.spare.born) > lastSpare {
				wait = firstSpare
			}
			g.endSpare("")
			g.spareFailed(fmt.Errorf("it ended: %s", end))
			hold, wait = time.Now().Add(wait), min(2*wait, lastSpare)
		case <-ctx.Done():
			return
		}
	}
}

// fitSpare ends a standby that runs and is not to, or could not take the guest.
func (g *guest) fitSpare(ram, reason string) {
	if g.spare == nil {
		return
	}
	if reason == "" {
		reason = g.spare.misfit(g.spec(), ram)
	}
	if _, ended := g.spare.end(); reason != "" && !ended {
		g.endSpare(reason)
	}
}

// spareBase gives the memory that a standby may wait on, or why there is to be
// none.
func (g *guest) spareBase(ctx context.Context) (ram, reason string) {
	spec := g.spec()
	if why := spec.NoStandby(); why != "" {
		return "", why
	}
	g.mu.Lock()
	standby, prepared := g.standby, g.here.Prepared
	g.mu.Unlock()
	if standby == nil || prepared == 0 {
		return "", "there is no replica here"
	}
	status, err := standby.Status(ctx)
	switch {
	case err != nil:
		return "", "the replica does not answer: " + err.Error()
	case !status.Complete:
		return "", "the replica has no checkpoint yet"
	}
	return status.RAMPath, ""
}

// startSpare starts the standby. No lease is needed: it executes nothing, and
// its guard lets it be claimed only under an epoch that is to come.
func (g *guest) startSpare(ctx context.Context, ram string) error {
	g.tellSpare(api.StandbyStarting, "")
	g.mu.Lock()
	prepared := g.here.Prepared
	g.mu.Unlock()
	request := g.describe(prepared+1, guard.Forever, vm.Options{Incoming: true, Replica: true, Offline: true})
	request.Layout.RAMFile = ram
	// The trial of the peer's state speaks for the QEMU that is installed now.
	s, err := newSpare(request.Spec, append(vm.Files(request.Spec, request.Layout, true), ram, g.n.host.QEMU))
	if err != nil {
		return err
	}
	var l launch
	m := &machine{epoch: prepared}
	if m.Guest, err = vm.Start(ctx, g.n.platform(&l), request); err != nil {
		return err
	}
	m.guard, m.monitor, s.machine = l.guard, l.monitor, m
	g.spare = s
	g.tellSpare(api.StandbyReady, "")
	g.n.journal.record(info, "standby-ready", g.name(), fmt.Sprintf("a QEMU waits here to take %s over, process %d, started in %d ms", g.name(), m.guard.PID(), time.Since(s.born).Milliseconds()))
	return nil
}

// newSpare looks at the files before they are opened.
func newSpare(spec vm.Spec, files []string) (*spare, error) {
	s := &spare{born: time.Now(), hardware: string(specHash(spec)), files: map[string]os.FileInfo{}}
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		s.files[path] = info
	}
	return s, nil
}

// misfit says why the standby could not take a checkpoint with that memory.
func (s *spare) misfit(spec vm.Spec, ram string) string {
	if s.hardware != string(specHash(spec)) {
		return "the guest's hardware has changed"
	}
	if _, ok := s.files[ram]; !ok {
		return "the replica has another memory"
	}
	for path, was := range s.files {
		now, err := os.Stat(path)
		if err != nil || !os.SameFile(was, now) || was.Size() != now.Size() {
			return fmt.Sprintf("there is another file %s now", path)
		}
	}
	return ""
}

// endSpare ends the standby if there is one, and waits until it is gone. Why is
// for the log.
func (g *guest) endSpare(why string) {
	s := g.spare
	if s == nil {
		return
	}
	g.spare = nil
	s.killNow()
	select {
	case <-s.guard.Dead():
	case <-time.After(spareEnds): // it hangs in the kernel; the next start says so
	}
	select {
	case <-s.ended():
	case <-time.After(answerBound): // its guard does not answer and would stand in the way
		ctx, cancel := context.WithTimeout(context.Background(), answerBound)
		defer cancel()
		if err := guard.EndStuck(ctx, g.layout.GuardConfig()); err != nil && !errors.Is(err, guard.ErrGone) {
			g.log.Warn("the guard of the guest's standby does not end", "error", err)
		}
	}
	s.close()
	g.sweep()
	g.tellSpare(api.StandbyOff, why)
	g.log.Info("the guest's standby was ended", "reason", why)
}

func (g *guest) spareFailed(err error) {
	reason := oneLine(err.Error())
	g.tellSpare(api.StandbyOff, reason)
	g.n.journal.record(warning, "standby-failed", g.name(), fmt.Sprintf("%s has no standby here, so a takeover starts a QEMU anew: %s", g.name(), reason))
}

// standbyHere is where the standby of another node's guest stands.
func (g *guest) standbyHere() (sparing, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status.spare, !g.mine() && g.status.spare.State != ""
}

func (g *guest) tellSpare(state, reason string) {
	told := sparing{state, reason}
	g.mu.Lock()
	same := g.status.spare == told
	g.mu.Unlock()
	if same {
		return
	}
	g.locked(func() { g.status.spare = told })
	g.n.exchange.soon() // the owner shows it
}

// spareBound bounds a takeover in a standby, which takes milliseconds.
const spareBound = 3 * time.Second

// bySpare resumes the guest in the standby that waits. After an error the
// standby is gone, and the checkpoint as good as before unless it was used up.
func (g *guest) bySpare(ctx context.Context, epoch uint64, from replica.Checkpoint, activate func(context.Context) (string, error)) (*machine, error) {
	s := g.spare
	if s == nil {
		g.mu.Lock()
		waits := g.status.spare
		g.mu.Unlock()
		return nil, fmt.Errorf("%w: %s", errNoSpare, waits)
	}
	ctx, cancel := context.WithTimeout(ctx, spareBound)
	defer cancel()
	var err error
	if end, ended := s.end(); ended {
		err = fmt.Errorf("it ended: %s", end)
	} else if why := s.misfit(g.spec(), from.RAMPath); why != "" {
		err = errors.New(why)
	} else {
		err = s.resume(ctx, g, epoch, from, activate)
	}
	if err != nil {
		g.endSpare(err.Error())
		return nil, fmt.Errorf("resume it in its standby: %w", err)
	}
	g.spare = nil
	g.tellSpare("", "")
	return s.machine, nil
}

// errNoSpare is no failure: there was none to use.
var errNoSpare = errors.New("no standby waited")

func (s sparing) String() string {
	if s.Reason == "" {
		return "it was not ready"
	}
	return s.Reason
}
