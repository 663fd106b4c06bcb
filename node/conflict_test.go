package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/witness"
	"vmctl/node/witness/porter"
	"vmctl/vm/guard"
)

// TestMain makes the test's program the guard that an agent runs of itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "guard" {
		if err := guard.Main(context.Background(), os.Args[2], slog.New(slog.DiscardHandler)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == "porter" {
		if err := porter.Main(context.Background(), slog.New(slog.DiscardHandler)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "watchdog" {
		keepFake(os.Args[2], os.Args[3])
	}
	os.Exit(m.Run())
}

// A start that cannot succeed says so, in time, and is not tried for ever.
func TestStartThatFails(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	ctx := t.Context()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Create(ctx, fmt.Appendf(nil, "{name: web, memory: 64M, disks: [{path: %s, format: raw}]}", disk)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(disk); err != nil {
		t.Fatal(err)
	}
	bound, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := of(a.Act(bound, "web", api.Start, 0))
	if err == nil || bound.Err() != nil {
		t.Fatalf("a start without its disk: %v", err)
	}
	want(t, "a start without its disk", err, api.AsError(err).Code, disk)
	v, err := a.VM(ctx, "web")
	if err != nil || v.State != "stopped" || v.Run || v.PID != 0 {
		t.Errorf("after a failed start: %+v, %v", v, err)
	}
	if got := a.alarms(t); len(got) != 0 || !slices.Contains(a.eventKinds(t), "guest-failed-over") {
		t.Errorf("it is not to run any more, and these are raised: %q", got)
	}
	if err := a.Remove(ctx, "web", false); err != nil {
		t.Error(err)
	}
}

func TestPeerThatIsGone(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	for name, level := range map[string]string{"web": "resume", "db": "none", "theirs": "none"} {
		owner := a
		if name == "theirs" {
			owner = b
		}
		if _, err := owner.Create(ctx, fmt.Appendf(nil, "{name: %s, memory: 64M, protection: {level: %s}}", name, level)); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "a leave of a protected guest's owner", a.Leave(ctx), api.Conflict, "")
	eventually(t, "both to know all guests", func() bool {
		ours, err1 := a.VMs(ctx)
		theirs, err2 := b.VMs(ctx)
		return err1 == nil && err2 == nil && len(ours) == 3 && len(theirs) == 3
	})
	want(t, "a leave of a replica's holder", b.Leave(ctx), api.Conflict, "replica")
	b.stop()
	eventually(t, "the peer to be missed", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && !cluster.Members[1].Reachable && slices.Contains(a.eventKinds(t), "peer-lost")
	})
	v, err := a.VM(ctx, "theirs")
	if err != nil || v.State != "unknown" || v.Owner != "b" || v.Node != "a" {
		t.Errorf("the guest of a peer that is gone: %+v, %v", v, err)
	}
	if vms, err := a.VMs(ctx); err != nil || len(vms) != 3 {
		t.Errorf("%d guests, %v", len(vms), err)
	}
	for _, verb := range []api.Verb{api.Start, api.Stop, api.Kill} {
		want(t, string(verb)+" of the gone peer's guest", of(a.Act(ctx, "theirs", verb, 0)), api.Unreachable, "b")
	}
	want(t, "a change of the gone peer's guest", of(a.Change(ctx, "theirs", []byte("cpus: 1"))), api.Unreachable, "b")
	want(t, "a removal of the gone peer's guest", a.Remove(ctx, "theirs", true), api.Unreachable, "b")
	want(t, "a promotion without a word", of(a.Promote(ctx, "theirs", false)), api.Unsafe, "")
	want(t, "a removal while the peer is gone", a.Remove(ctx, "db", false), api.Unreachable, "--force")
	if err := a.Remove(ctx, "db", true); err != nil {
		t.Errorf("a forced removal: %v", err)
	}
	status, err := a.Status(ctx)
	if err != nil || status.Protected || status.Summary == "" {
		t.Errorf("%+v, %v", status, err)
	}
	b = run(t, b.config)
	eventually(t, "the removal to reach the peer", func() bool {
		vms, err := b.VMs(ctx)
		return err == nil && len(vms) == 2
	})
}

func TestWitnessOfACluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		config := witness.Config{
			Name: "w", StateDir: dir, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler),
			Porter: porter.Command{Path: "/proc/self/exe", Args: []string{"porter", "porter"}, Env: os.Environ()},
		}
		done <- witness.Run(ctx, config, func(addr string) { ready <- addr })
	}()
	var addr string
	select {
	case addr = <-ready:
	case err := <-done:
		cancel()
		t.Fatal("the witness ended: ", err)
	}
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	token := func() string {
		text, err := witness.ReadToken(dir)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	a, b := pair(t)
	want(t, "a witness where nobody is", of(a.AddWitness(ctx, freeAddr(t), token())), api.Unreachable, "cannot be reached")
	want(t, "a witness at a node's address", of(a.AddWitness(ctx, b.addr, token())), api.Unsafe, "certificate")
	want(t, "a witness by a join token", of(a.AddWitness(ctx, addr, a.token(t))), api.Usage, "witness token is needed")
	want(t, "a witness at no address", of(a.AddWitness(ctx, "nonsense", token())), api.Usage, "ADDR:PORT")
	used := token()
	if _, err := a.AddWitness(ctx, addr, used); err != nil {
		t.Fatal(err)
	}
	want(t, "a witness by a used token", of(b.AddWitness(ctx, addr, used)), api.Unsafe, "witness token")
	for _, n := range []*agent{a, b} {
		eventually(t, "both nodes to reach the witness", func() bool {
			cluster, err := n.Cluster(ctx)
			return err == nil && cluster.Mode == "witness" && cluster.Witness != nil && cluster.Witness.Reachable
		})
	}
	if err := b.RemoveWitness(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both nodes to do without", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && cluster.Mode == "none" && cluster.Witness == nil
	})
}

// A node leaves while the other's unprotected guests run, and forgets them; so does
// one whose peer has left before, or is gone for good. What it had of them stays, and
// it may come back.
func TestLeave(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	names := func(n *agent) (list []string) {
		vms, err := n.VMs(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vms {
			list = append(list, v.Name+" of "+v.Owner)
		}
		return list
	}
	know := func(n *agent, want ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s to know %q", n.config.Name, want), func() bool { return slices.Equal(names(n), want) })
	}
	v, err := a.Create(ctx, []byte("{name: web, memory: 64M, protection: {level: resume}}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(ctx, []byte("{name: theirs, memory: 64M}")); err != nil {
		t.Fatal(err)
	}
	know(a, "theirs of b", "web of a")
	know(b, "theirs of b", "web of a")
	want(t, "a leave of a protected guest's owner", a.Leave(ctx), api.Conflict, "`vmctl vm set web --protection none` first")
	want(t, "a leave of a replica's holder", b.Leave(ctx), api.Conflict, "If a is lost for good: `vmctl ha promote web")
	if _, err := a.Change(ctx, "web", []byte("protection: {level: none}")); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(b.config.StateDir, "guests", v.UUID)
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b to leave", func() bool { err := b.Leave(ctx); t.Log(err); return err == nil })
	know(b, "theirs of b")
	if _, err := os.Stat(left); err != nil || !slices.Contains(b.eventKinds(t), "guest-left") {
		t.Errorf("what was here of the other's guest: %v, %q", err, b.eventKinds(t))
	}
	want(t, "a second leave", b.Leave(ctx), api.Conflict, "in none")
	b.stop()
	b = run(t, b.config)
	know(b, "theirs of b")
	if _, err := b.Join(ctx, a.addr, a.token(t)); err != nil {
		t.Fatalf("a node that comes back: %v", err)
	}
	know(b, "theirs of b", "web of a")

	b.stop() // for good
	eventually(t, "the peer to be missed", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && !cluster.Members[1].Reachable
	})
	if err := a.Leave(ctx); err != nil {
		t.Fatalf("a leave when the peer is lost: %v", err)
	}
	know(a, "web of a")
	if !slices.Contains(a.eventKinds(t), "peer-lost-over") {
		t.Errorf("the alarm that the peer is silent stands: %q", a.eventKinds(t))
	}
	if v, err := a.Act(ctx, "web", api.Start, 0); err != nil || v.State != "running" {
		t.Errorf("a start alone: %+v, %v", v, err)
	}
	if err := a.Remove(ctx, "web", true); err != nil {
		t.Error(err)
	}
}
