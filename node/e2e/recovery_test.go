package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// TestRecoveryInOrderAndHome cuts the power of a host with three guests: the
// other one resumes them in the order that their user wants. When the first is
// back, the guest with failback goes home without losing a step of its work.
func TestRecoveryInOrderAndHome(t *testing.T) {
	b := sharedBench(t, resumed)
	ctx := t.Context()
	_, err := b.A.CreateQuiet(ctx, "batch", files, "--protection", "resume", "--priority", "-5")
	b.must(err)
	_, err = b.A.CreateQuiet(ctx, "db", files, "--protection", "resume")
	b.must(err)
	_, err = b.A.CLI(ctx, "vm", "set", lab.GuestName, "--after", "db", "--home", b.A.Name, "--failback", "when-synced", "--settle", "2")
	b.must(err)
	b.afterwards("vm", "set", lab.GuestName, "--after", "", "--failback", "never", "--settle", "30")
	for _, name := range []string{"batch", "db", lab.GuestName} {
		b.must(lab.Eventually(ctx, time.Minute, func() error {
			v, err := b.A.API().VM(ctx, name)
			if err != nil {
				return err
			}
			return lab.Synced(v)
		}))
	}

	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
	var order []string
	b.must(lab.Eventually(ctx, 30*time.Second, func() error {
		if order = b.eventOrder(b.B, "guest-resumed"); len(order) != 3 {
			return fmt.Errorf("resumed so far: %v", order)
		}
		return nil
	}))
	if want := []string{"db", lab.GuestName, "batch"}; !slices.Equal(order, want) {
		t.Errorf("resumed in the order %v, want %v", order, want)
	}
	if waited := b.eventOrder(b.B, "recovery-waits"); !slices.Contains(waited, lab.GuestName) && !slices.Contains(waited, "batch") {
		t.Errorf("nothing tells that a guest waited for another: %v", waited)
	}

	back := time.Now()
	b.must(b.A.PowerOn(ctx))
	home, err := b.recorder.WaitOn(ctx, b.A.Name, back, 2*time.Minute)
	b.must(err)
	proof, err := b.WaitAnswer(ctx, 10*time.Second)
	b.must(err)
	if proof.Token != b.first.Token || proof.Broken {
		t.Errorf("not the guest that was started, or broken: first %+v, now %+v", b.first, proof)
	}
	stints := b.recorder.Stints()
	away := stints[len(stints)-2]
	if away.Node != b.B.Name || home.From <= away.To {
		t.Errorf("work was lost on the way home: away %+v, home %+v", away, home)
	}
	t.Logf("home %.1f s after the power was back; step %d there, %d here", home.First.Sub(back).Seconds(), away.To, home.From)
	b.must(lab.Eventually(ctx, 10*time.Second, func() error {
		if !slices.Contains(b.eventOrder(b.B, "failback-done"), lab.GuestName) {
			return fmt.Errorf("no event says that the guest is home")
		}
		return nil
	}))
	for _, name := range []string{"db", "batch"} {
		if v, err := b.B.API().VM(ctx, name); err != nil || v.Owner != b.B.Name || v.Home != b.A.Name {
			t.Errorf("%s was not to move: owner %s, home %s, %v", name, v.Owner, v.Home, err)
		}
	}
	for _, name := range []string{"db", "batch"} {
		for _, verb := range []string{"kill", "rm"} {
			_, err := b.B.CLI(ctx, "vm", verb, name)
			b.must(err)
		}
	}
}

// eventOrder lists the guests of a host's events of a kind, oldest first.
func (b *bench) eventOrder(h *lab.Host, kind string) (names []string) {
	b.t.Helper()
	err := h.API().Events(b.t.Context(), api.EventFilter{Since: b.began}, func(e api.Event) error {
		if e.Kind == kind {
			names = append(names, e.VM)
		}
		return nil
	})
	b.must(err)
	return names
}
