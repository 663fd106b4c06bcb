package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// A guest's boot under emulation costs more processor time than most tests that
// have it. Tests that leave a lab and its guest in good order, and to which it is
// all the same what both have been through, hand them on.

// shared are the labs that the next tests can have.
var shared shelf

type shelf struct {
	mu     sync.Mutex
	wanted int // tests that will come for one
	idle   []*bench
}

// sharedBench is a lab with a guest on a that is protected and waited for by a
// standby. Another test may have had it, and another gets it if this one passes:
// the lab is mended at its end, and that it can be is part of the test. Whatever
// the test asserts must be about what happened since it began, and not depend on
// when the guest was recovered last, nor twice on the same plain notification.
func sharedBench(t *testing.T) *bench {
	t.Helper()
	shared.want()
	t.Parallel()
	b := shared.take()
	if b == nil {
		b = form(t, func(*lab.Lab) error { return nil }, "--protection", "resume")
		b.standby(b.A, b.B)
		for _, h := range b.Hosts() {
			b.census[h] = b.kinds(h)
		}
	} else {
		b = &bench{Lab: b.Lab, t: t, ear: b.ear, census: b.census}
		b.Log = t.Logf
		b.ear.Forget()
		b.begin()
		var err error
		b.vm, err = b.A.Show(t.Context())
		b.must(err)
		b.watch(func() error {
			_, err := b.A.CLI(t.Context(), "vm", "unpause", lab.GuestName)
			return err
		})
	}
	t.Cleanup(func() { // while it is still watched
		if t.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		if err := b.mend(ctx); err != nil {
			t.Errorf("after the test the lab does not become as it was: %v", err)
		}
	})
	return b
}

func (s *shelf) want() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted++
}

// take gives a lab to a test that wanted one, nil if there is none.
func (s *shelf) take() *bench {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted--
	if len(s.idle) == 0 {
		return nil
	}
	b := s.idle[0]
	s.idle = s.idle[1:]
	return b
}

// put says whether it keeps a lab: only if there will be somebody to have it.
func (s *shelf) put(b *bench) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) >= s.wanted {
		return false
	}
	s.idle = append(s.idle, b)
	return true
}

// close removes what is left when all tests have ended.
func (s *shelf) close() (failed error) {
	for _, b := range s.idle {
		failed = errors.Join(failed, b.close())
	}
	return failed
}

// mend ends all faults, brings the guest back to a, and sees that nothing is left of
// what happened: everything runs that did when the lab was new and nothing else, the
// guest is protected, no alarm is raised, no disks are kept. Then the guest rests.
func (b *bench) mend(ctx context.Context) error {
	failed := b.Heal(ctx)
	for _, h := range b.Hosts() {
		if h.Off() {
			failed = errors.Join(failed, h.PowerOn(ctx))
		}
	}
	if failed != nil {
		return failed
	}
	v, err := b.A.WaitState(ctx, time.Minute, lab.Synced)
	if err == nil && v.Owner != b.A.Name {
		err = b.home(ctx)
	}
	if err != nil {
		return err
	}
	if err := lab.Eventually(ctx, 30*time.Second, func() error { return b.inOrder(ctx) }); err != nil {
		return err
	}
	if _, err := b.A.CLI(ctx, "vm", "pause", lab.GuestName); err != nil {
		return err
	}
	b.mended = true
	return nil
}

// home hands the guest over from b to a.
func (b *bench) home(ctx context.Context) error {
	if _, err := b.B.CLI(ctx, "node", "maintenance", "on"); err != nil {
		return err
	}
	if _, err := b.A.WaitState(ctx, time.Minute, func(v api.VM) error {
		if v.Owner != b.A.Name {
			return fmt.Errorf("the guest is still %s's", v.Owner)
		}
		return lab.InState("running")(v)
	}); err != nil {
		return err
	}
	_, err := b.B.CLI(ctx, "node", "maintenance", "off")
	return err
}

// giveUp removes the disks that hosts keep from before they were taken over.
func (b *bench) giveUp(ctx context.Context, kept []api.Kept) (failed error) {
	for _, k := range kept {
		_, err := b.A.CLI(ctx, "vm", "kept", lab.GuestName, "--rm", strconv.FormatUint(k.Epoch, 10))
		failed = errors.Join(failed, err)
	}
	return failed
}

// inOrder says what in the lab is not as it was when it was new.
func (b *bench) inOrder(ctx context.Context) error {
	v, err := b.A.Show(ctx)
	if err = errors.Join(err, lab.Synced(v)); err != nil {
		return err
	}
	if len(v.Kept) > 0 {
		return errors.Join(b.giveUp(ctx, v.Kept), fmt.Errorf("kept were %+v", v.Kept))
	}
	if err := lab.Covered(v); err != nil || v.Owner != b.A.Name || v.Protection.Now != v.Protection.Level {
		return errors.Join(err, fmt.Errorf("%s has it, protected as %s", v.Owner, v.Protection.Now))
	}
	for _, h := range b.Hosts() {
		if now := b.kinds(h); now != b.census[h] {
			return fmt.Errorf("on %s there were %s, now %s", h.Name, b.census[h], now)
		}
		if h == b.W {
			continue
		}
		status, err := h.API().Status(ctx)
		if err != nil {
			return err
		}
		if status.Node.Maintenance || len(status.Node.Alarms) > 0 {
			return fmt.Errorf("%s is in maintenance: %t, and has the alarms %+v", h.Name, status.Node.Maintenance, status.Node.Alarms)
		}
	}
	if open := b.ear.Open(); len(open) > 0 {
		return fmt.Errorf("nobody told the end of %v", open)
	}
	return nil
}

// kinds are the processes of a host, by what they are.
func (b *bench) kinds(h *lab.Host) string {
	list, err := h.Processes(context.Background())
	if err != nil {
		return err.Error()
	}
	var words []string
	for _, p := range list {
		for _, kind := range []string{"node", "witness", "guard", "qemu"} {
			if p.Is(kind) {
				words = append(words, kind)
				break
			}
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}
