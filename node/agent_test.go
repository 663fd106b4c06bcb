package node_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmctl/node"
	"vmctl/node/api"
)

// agent is a node of a test, run in this process.
type agent struct {
	*api.Client
	config node.Config
	addr   string
	stop   func()
}

// freeAddr is an address of this host that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// dirs makes a config with directories of its own; their paths are short, for
// sockets lie in them.
func dirs(t *testing.T, name string) node.Config {
	t.Helper()
	root, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	ram, err := os.MkdirTemp("/dev/shm", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root); os.RemoveAll(ram) })
	return node.Config{
		Name: name, StateDir: filepath.Join(root, "s"), RuntimeDir: filepath.Join(root, "r"), RAMDir: filepath.Join(ram, "m"),
		Listen: freeAddr(t), Accel: "tcg", Log: slog.New(slog.DiscardHandler),
	}
}

func startAgent(t *testing.T, name string) *agent {
	t.Helper()
	return run(t, dirs(t, name))
}

// run starts an agent and returns once it serves.
func run(t *testing.T, config node.Config) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- node.Run(ctx, config, func(*node.Node) { close(ready) }) }()
	a := &agent{Client: api.NewClient(config.Socket()), config: config, addr: config.Listen}
	ended := false
	a.stop = func() {
		cancel()
		a.Close()
		if ended {
			return
		}
		ended = true
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("agent %s ended: %v", config.Name, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("agent %s does not end", config.Name)
		}
	}
	t.Cleanup(a.stop)
	select {
	case <-ready:
	case err := <-done:
		ended = true
		t.Fatalf("agent %s did not start: %v", config.Name, err)
	}
	return a
}

// refusedStart is the error with which an agent does not start.
func refusedStart(t *testing.T, config node.Config) *api.Error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := node.Run(ctx, config, func(*node.Node) { t.Error("an agent runs that must not"); cancel() })
	if err == nil {
		return &api.Error{}
	}
	return api.AsError(err)
}

// pair makes a cluster of two agents that hear each other.
func pair(t *testing.T) (a, b *agent) {
	t.Helper()
	a, b = startAgent(t, "a"), startAgent(t, "b")
	join(t, a, b)
	return a, b
}

// join makes a cluster of two agents that hear each other.
func join(t *testing.T, a, b *agent) {
	t.Helper()
	if _, err := a.Init(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(t.Context(), a.addr, a.token(t)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*agent{a, b} {
		eventually(t, "the nodes to hear each other", func() bool {
			cluster, err := n.Cluster(t.Context())
			return err == nil && len(cluster.Members) == 2 && cluster.Members[0].Reachable && cluster.Members[1].Reachable
		})
	}
}

func (a *agent) token(t *testing.T) string {
	t.Helper()
	token, err := a.NewToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return token.Token
}

// files lists what is in the agent's directories, without its database and
// sockets.
func (a *agent) files(t *testing.T) (list []string) {
	t.Helper()
	for _, dir := range []string{a.config.StateDir, a.config.RuntimeDir, a.config.RAMDir} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !entry.IsDir() && !slices.Contains([]string{"vmctl.db", "vmctl.sock"}, entry.Name()) {
				list = append(list, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	guests, err := filepath.Glob(filepath.Join(a.config.StateDir, "guests", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(list, guests...)
}

// eventually waits for something that other goroutines bring about.
func eventually(t *testing.T, what string, test func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !test(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// want checks the class of a failure and what it says, hint included.
func want(t *testing.T, what string, err error, code api.Code, say string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: done, not refused as %s", what, code)
		return
	}
	e := api.AsError(err)
	if e.Code != code || !strings.Contains(e.Message+" "+e.Hint, say) {
		t.Errorf("%s: %s %q, hint %q; want %s and %q", what, e.Code, e.Message, e.Hint, code, say)
	}
	if strings.Contains(e.Message, "goroutine ") || strings.Contains(e.Message, "0x") {
		t.Errorf("%s: not for people: %q", what, e.Message)
	}
}

func of(_ any, err error) error { return err }

var _ = fmt.Sprint
