package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// sharedBench is a lab of a kind with a guest on a, which is protected. Another test
// may have had it, and another gets it if this one passes: the lab is mended at its
// end, and that it can be is part of the test. Whatever the test asserts must be
// about what happened since it began, and not depend on when the guest was recovered
// last, nor twice on the same plain notification. The hosts' names may be exchanged:
// a is the one that has the guest.
func sharedBench(t *testing.T, k *kind) *bench { return benchOf(t, k, false) }

// lastBench is a lab of a kind that nobody has after this test.
func lastBench(t *testing.T, k *kind) *bench { return benchOf(t, k, true) }

func benchOf(t *testing.T, k *kind, last bool) *bench {
	t.Helper()
	before := shared.take(t, k, last)
	b := &bench{t: t, kind: k, last: last}
	t.Cleanup(b.leave)
	if before == nil {
		b.form()
	} else {
		b.Lab, b.ear, b.census, b.A, b.B, b.recovered = before.Lab, before.ear, before.census, before.A, before.B, before.recovered
		b.Log = t.Logf
		b.ear.Forget()
		b.begin()
		var err error
		b.vm, err = b.A.Show(t.Context())
		b.must(err)
		b.watch()
	}
	if !last {
		t.Cleanup(func() { // while it is still watched
			if t.Failed() {
				return
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
			defer cancel()
			began := time.Now()
			if err := b.mend(ctx); err != nil {
				t.Errorf("after the test the lab does not become as it was: %v", err)
			}
			t.Logf("the test took %v, mending its lab %v", began.Sub(b.began).Round(time.Second/10), time.Since(began).Round(time.Second/10))
		})
	}
	return b
}

// leave hands the lab on, or removes it.
func (b *bench) leave() {
	if b.Lab != nil && b.t.Failed() {
		b.tell()
	} else if b.mended && shared.give(b.kind, b) {
		return
	}
	if err := b.close(); err != nil {
		b.t.Error(err)
	}
	shared.gone(b.kind)
}

// afterwards has the owner's agent told something when the lab is mended.
func (b *bench) afterwards(args ...string) { b.undo = append(b.undo, args) }

// swap exchanges a and b.
func (b *bench) swap() { b.A, b.B = b.B, b.A }

// mend ends all faults and sees that nothing is left of what happened: everything
// runs that did when the lab was new and nothing else, the guest is protected, no
// alarm is raised, no disks are kept.
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
	v, err := b.agreed(ctx)
	if err != nil {
		return err
	}
	if v.Owner != b.A.Name {
		b.swap()
	}
	if !v.Run {
		b.undo = append(b.undo, []string{"vm", "start", lab.GuestName})
	}
	for _, args := range b.undo {
		if _, err := b.A.CLI(ctx, args...); err != nil {
			return err
		}
	}
	if err := lab.Eventually(ctx, 90*time.Second, func() error { return b.inOrder(ctx) }); err != nil {
		return err
	}
	b.mended = true
	if stints := b.recorder.Stints(); len(stints) > 1 {
		b.recovered = stints[len(stints)-1].First
	}
	return nil
}

// agreed is the guest as both nodes see it: who has just come back may know less.
func (b *bench) agreed(ctx context.Context) (v api.VM, err error) {
	err = lab.Eventually(ctx, 30*time.Second, func() error {
		var mine error
		v, mine = b.A.Show(ctx)
		other, its := b.B.Show(ctx)
		if failed := errors.Join(mine, its); failed != nil {
			return failed
		}
		if v.Owner != other.Owner || v.Epoch != other.Epoch || v.Run != other.Run {
			return fmt.Errorf("%s says owner %s, epoch %d; %s says owner %s, epoch %d", b.A.Name, v.Owner, v.Epoch, b.B.Name, other.Owner, other.Epoch)
		}
		return nil
	})
	return v, err
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
	if v.Owner != b.A.Name || v.Protection.Now != v.Protection.Level {
		return fmt.Errorf("%s has it, protected as %s", v.Owner, v.Protection.Now)
	}
	if v.Protection.Level == "resume" {
		if err := lab.Covered(v); err != nil {
			return err
		}
	}
	for i, h := range b.roles() {
		if now := b.kinds(h); now != b.census[i] {
			return fmt.Errorf("on %s there were %s, now %s", h.Name, b.census[i], now)
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

// roles are the hosts by what they do: the guest's owner, its peer, the witness.
func (b *bench) roles() []*lab.Host { return []*lab.Host{b.A, b.B, b.W} }

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
