package node_test

import (
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmctl/node/api"
)

func TestInitTokenJoin(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	for _, n := range []*agent{a, b} {
		cluster, err := n.Cluster(ctx)
		if err != nil || cluster.Name != "shop" || cluster.Mode != "none" || cluster.Self != n.config.Name || len(cluster.Members) != 2 {
			t.Errorf("%+v, %v", cluster, err)
		}
		want(t, "a second cluster", of(n.Init(ctx, "bank")), api.Conflict, "shop already")
		want(t, "a join of a member", of(n.Join(ctx, a.addr, a.token(t))), api.Conflict, "shop already")
		if ha, err := n.HA(ctx); err != nil || ha.Peer == nil || !ha.Peer.Reachable {
			t.Errorf("%+v, %v", ha, err)
		}
	}
	b.stop()
	b = run(t, b.config)
	eventually(t, "a restarted node to be heard again", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && cluster.Members[1].Reachable
	})
	if cluster, err := b.Cluster(ctx); err != nil || cluster.Name != "shop" {
		t.Errorf("the cluster after a restart: %+v, %v", cluster, err)
	}
}

func TestJoinRefused(t *testing.T) {
	t.Parallel()
	a, b, other := startAgent(t, "a"), startAgent(t, "b"), startAgent(t, "x")
	ctx := t.Context()
	want(t, "a token without a cluster", of(a.NewToken(ctx)), api.Conflict, "cluster init")
	want(t, "a status without a cluster", of(a.Cluster(ctx)), api.Conflict, "cluster init")
	want(t, "a leave without a cluster", a.Leave(ctx), api.Conflict, "in none")
	for _, name := range []string{"", "../x", "Shop", "a b", strings.Repeat("a", 64)} {
		want(t, "a cluster named "+name, of(a.Init(ctx, name)), api.Usage, "lower-case")
	}
	for name, agent := range map[string]*agent{"shop": a, "bank": other} {
		if _, err := agent.Init(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	good := a.token(t)
	for _, bad := range []string{"", "vmctl-", "hello", good[:len(good)-5], good + "!", "vmctl-" + strings.Repeat("A", 100000)} {
		want(t, "a malformed token", of(b.Join(ctx, a.addr, bad)), api.Usage, "token")
	}
	want(t, "a token of another cluster", of(b.Join(ctx, a.addr, other.token(t))), api.Unsafe, "certificate")
	for _, bad := range []string{"", "nonsense", "127.0.0.1", "a:b:c", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x"} {
		want(t, "the address "+bad, of(b.Join(ctx, bad, good)), api.Usage, "ADDR:PORT")
	}
	want(t, "an address where nobody is", of(b.Join(ctx, freeAddr(t), good)), api.Unreachable, "cannot be reached")
	want(t, "an address that does not answer", of(b.Join(ctx, silent(t), good)), api.Unreachable, "cannot be reached")
	want(t, "an address of something else", of(b.Join(ctx, chatty(t), good)), api.Unreachable, "cannot be reached")
	want(t, "its own address", of(b.Join(ctx, b.addr, good)), api.Unreachable, "cannot be reached")

	same := startAgent(t, "a")
	want(t, "a node of the same name", of(same.Join(ctx, a.addr, good)), api.Conflict, "--name")
	joined, err := b.Join(ctx, a.addr, good)
	if err != nil {
		t.Fatalf("after all the refusals the token is good: %v", err)
	}
	if them := joined.Members[0]; !them.Reachable || them.SeenAgo == nil || them.Fits == nil {
		t.Errorf("who has just joined sees its peer as %+v", them)
	}
	third := startAgent(t, "c")
	want(t, "a used token, a third node", of(third.Join(ctx, a.addr, good)), api.Conflict, "pair already")
	want(t, "a third node", of(third.Join(ctx, a.addr, a.token(t))), api.Conflict, "pair already")
	want(t, "a third node through the second", of(third.Join(ctx, b.addr, b.token(t))), api.Conflict, "pair already")
	for _, n := range []*agent{same, third} {
		want(t, "the refused one's cluster", of(n.Cluster(ctx)), api.Conflict, "no cluster")
	}
}

func TestUsedAndForeignTokens(t *testing.T) {
	t.Parallel()
	a, b := startAgent(t, "a"), startAgent(t, "b")
	ctx := t.Context()
	if _, err := a.Init(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	token := a.token(t)
	if _, err := b.Join(ctx, a.addr, token); err != nil {
		t.Fatal(err)
	}
	if err := b.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	want(t, "a used token", of(b.Join(ctx, a.addr, token)), api.Unsafe, "used already, by b")
	if _, err := b.Join(ctx, a.addr, a.token(t)); err != nil {
		t.Errorf("a node that comes back: %v", err)
	}
	witnessToken := "vmctl-g6FrpHdpdG5lc3M" // not even whole
	want(t, "a token of the wrong kind", of(startAgent(t, "c").Join(ctx, a.addr, witnessToken)), api.Usage, "token")
	want(t, "a join token for a witness", of(a.AddWitness(ctx, a.addr, a.token(t))), api.Usage, "witness token is needed")
	want(t, "no witness to remove", a.RemoveWitness(ctx), api.NotFound, "there is none")
}

// A node of another cluster is no peer, even at the peer's address and by the
// peer's name.
func TestAnotherClustersNodeIsNoPeer(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	b.stop()
	eventually(t, "the peer to be missed", func() bool {
		cluster, err := a.Cluster(t.Context())
		return err == nil && !cluster.Members[1].Reachable
	})
	config := dirs(t, "b")
	config.Listen = b.addr
	stranger := run(t, config)
	if _, err := stranger.Init(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stranger to be tried", func() bool {
		events := ""
		err := stranger.Events(t.Context(), api.EventFilter{}, func(e api.Event) error { events += e.Message; return nil })
		return err == nil && events != ""
	})
	if cluster, err := a.Cluster(t.Context()); err != nil || cluster.Members[1].Reachable {
		t.Errorf("a stranger is taken for the peer: %+v, %v", cluster, err)
	}
}

func silent(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}

// chatty is a server of another protocol.
func chatty(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestStartRefused(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	second := dirs(t, "a")
	second.StateDir = a.config.StateDir
	e := refusedStart(t, second)
	want(t, "a second agent on a state directory", e, api.Conflict, "in use by another process")

	second = dirs(t, "b")
	second.RuntimeDir = a.config.RuntimeDir
	want(t, "a second agent on a runtime directory", refusedStart(t, second), api.Conflict, "--runtime-dir")

	second = dirs(t, "b")
	second.Listen = a.addr
	want(t, "a second agent on an address", refusedStart(t, second), api.Conflict, "--listen")
	if _, err := a.Status(t.Context()); err != nil {
		t.Errorf("the first agent after all that: %v", err)
	}

	a.stop()
	renamed := a.config
	renamed.Name = "b"
	want(t, "another name", refusedStart(t, renamed), api.Conflict, "--name a")

	file := filepath.Join(a.config.StateDir, "vmctl.db")
	for what, test := range map[string]struct {
		change func(*agent)
		code   api.Code
		say    string
	}{
		"a state directory below a file": {func(n *agent) { n.config.StateDir = filepath.Join(file, "x") }, api.Failed, "not a directory"},
		"a state directory in proc":      {func(n *agent) { n.config.StateDir = "/proc/vmctl" }, api.Failed, "/proc/vmctl"},
		"no state directory":             {func(n *agent) { n.config.StateDir = "" }, api.Usage, "--state-dir"},
		"no runtime directory":           {func(n *agent) { n.config.RuntimeDir = "" }, api.Usage, "--runtime-dir"},
		"a long runtime directory":       {func(n *agent) { n.config.RuntimeDir += strings.Repeat("/long", 20) }, api.Usage, "shorter"},
		"a name with a slash":            {func(n *agent) { n.config.Name = "a/b" }, api.Usage, "lower-case"},
		"a name of dots":                 {func(n *agent) { n.config.Name = ".." }, api.Usage, "lower-case"},
		"an address without a port":      {func(n *agent) { n.config.Listen = "127.0.0.1" }, api.Usage, "ADDR:PORT"},
		"another host's address":         {func(n *agent) { n.config.Listen = "192.0.2.1:7440" }, api.Usage, "192.0.2.1"},
		"an advertised nonsense":         {func(n *agent) { n.config.Advertise = "nonsense" }, api.Usage, "--advertise"},
		"an accelerator":                 {func(n *agent) { n.config.Accel = "turbo" }, api.Usage, "turbo"},
	} {
		n := &agent{config: dirs(t, "n")}
		test.change(n)
		want(t, what, refusedStart(t, n.config), test.code, test.say)
	}
}

// TestReplacedHost: a new host under the name of a lost one, which was started more
// often, is heard: its heartbeats are not taken for old ones of the lost host. It is
// told at once what the third vote is.
func TestReplacedHost(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	for range 3 {
		b.stop()
		b = run(t, b.config)
	}
	heard := func(name string) {
		t.Helper()
		if _, err := b.Create(ctx, []byte("{name: "+name+", memory: 64M}")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the peer to hear whose "+name+" is", func() bool {
			ha, err := a.HA(ctx) // as its own lease core has it
			return err == nil && slices.ContainsFunc(ha.Guests, func(g api.HAGuest) bool { return g.VM == name && g.Owner == "b" })
		})
	}
	heard("old")
	if _, err := a.SetMode(ctx, api.ModeChange{Mode: "bias", Bias: "a"}); err != nil {
		t.Fatal(err)
	}
	b.stop()
	config := dirs(t, "b")
	config.Listen = b.addr
	b = run(t, config)
	joined, err := b.Join(ctx, a.addr, a.token(t))
	if err != nil {
		t.Fatal(err)
	}
	if joined.Mode != "bias" || joined.Bias != "a" {
		t.Errorf("who has just joined is told of the third vote %q %q", joined.Mode, joined.Bias)
	}
	heard("new")
}
