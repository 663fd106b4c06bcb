package node_test

import (
	"fmt"
	"slices"
	"testing"

	"vmctl/node/api"
)

// TestWouldNotFit: what one node alone could not hold is refused, and when it is
// forced an alarm stands on both nodes until it would fit again; also over a restart
// of the agent with less memory for guests.
func TestWouldNotFit(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	small := dirs(t, "b")
	small.GuestMemory = "600M"
	b := run(t, small)
	join(t, a, b)
	ctx := t.Context()
	for _, name := range []string{"one", "two"} {
		if _, err := a.Create(ctx, fmt.Appendf(nil, "{name: %s, memory: 64M}", name)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Act(ctx, name, api.Start, 0); err != nil {
			t.Fatal(err)
		}
	}
	protect := []byte("protection: {level: restart}")
	eventually(t, "the peer to say what it has", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && cluster.Members[1].Fits != nil
	})
	if _, err := a.Change(ctx, "one", protect); err != nil {
		t.Fatalf("one guest fits: %v", err)
	}
	want(t, "a second guest for b", of(a.Change(ctx, "two", protect)), api.Unsafe, "b has to hold")
	raised := func(n *agent) func() bool {
		return func() bool { return slices.Contains(n.alarms(t), "would-not-fit") }
	}
	if raised(a)() || raised(b)() {
		t.Errorf("what fits is alarmed of: %q, %q", a.alarms(t), b.alarms(t))
	}
	a.Force = true
	if v, err := a.Change(ctx, "two", protect); err != nil || len(v.Warnings) == 0 {
		t.Fatalf("a forced change: %+v, %v", v, err)
	}
	eventually(t, "an alarm on the owner", raised(a))
	eventually(t, "an alarm on the peer", raised(b))
	status, err := a.Status(ctx)
	if err != nil || status.Protected {
		t.Errorf("%+v, %v", status, err)
	}
	if _, err := a.Act(ctx, "two", api.Kill, 0); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*agent{a, b} {
		eventually(t, "the alarm of "+n.config.Name+" to end", func() bool {
			return !raised(n)() && slices.Contains(n.eventKinds(t), "would-not-fit-over")
		})
	}
	b.stop()
	small.GuestMemory = "100M"
	b = run(t, small)
	eventually(t, "an alarm when a node has less memory", raised(b))
	eventually(t, "its peer to say so, too", raised(a))
	for _, name := range []string{"one", "two"} {
		if err := a.Remove(ctx, name, true); err != nil {
			t.Error(err)
		}
	}
}
