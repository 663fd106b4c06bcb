package api

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"vmctl/vm"
)

// fake is a backend that notes what it is asked for and answers as told.
type fake struct {
	mu    sync.Mutex
	calls []string

	vm      VM
	err     error
	route   func(name string) (http.RoundTripper, error)
	console func() (io.ReadWriteCloser, error)
	log     string
	events  []Event
	failAt  int           // the event in whose place an error comes, from 1
	ended   chan struct{} // closed when a following stream of events ended
	block   chan struct{} // what Act waits for, if anything

	verifier Verifier
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) noted() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

func (f *fake) Create(_ context.Context, spec vm.Spec, force bool) (VM, error) {
	f.note("create %s %v%s", spec.Name, spec.Memory, byForce(force))
	return f.vm, f.err
}

func (f *fake) Change(_ context.Context, name string, change []byte, force bool) (VM, error) {
	f.note("change %s %s%s", name, change, byForce(force))
	return f.vm, f.err
}

// byForce is how a forced call is noted.
func byForce(force bool) string {
	if force {
		return " by force"
	}
	return ""
}

func (f *fake) List(context.Context) ([]VM, error) { f.note("list"); return []VM{f.vm}, f.err }

func (f *fake) Show(_ context.Context, name string) (VM, error) {
	f.note("show %s", name)
	return f.vm, f.err
}

func (f *fake) Remove(_ context.Context, name string, force bool) error {
	f.note("remove %s %t", name, force)
	return f.err
}

func (f *fake) RemoveKept(_ context.Context, name string, epoch uint64, here bool) error {
	f.note("remove kept %s %d %t", name, epoch, here)
	return f.err
}

func (f *fake) Act(ctx context.Context, name string, verb Verb, option Option) (VM, error) {
	f.note("%s %s %s%s", verb, name, option.Bound, byForce(option.Force))
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
	}
	return f.vm, f.err
}

func (f *fake) ResizeDisk(_ context.Context, name, disk, size string, force bool) (VM, error) {
	f.note("resize %s %s %s%s", name, disk, size, byForce(force))
	return f.vm, f.err
}

func (f *fake) Console(_ context.Context, name string) (io.ReadWriteCloser, error) {
	f.note("console %s", name)
	if f.err != nil {
		return nil, f.err
	}
	return f.console()
}

func (f *fake) SerialLog(_ context.Context, name string) (string, error) {
	f.note("log %s", name)
	return f.log, f.err
}

func (f *fake) Promote(_ context.Context, name string, off bool) (VM, error) {
	f.note("promote %s %t", name, off)
	return f.vm, f.err
}

func (f *fake) Init(_ context.Context, name string) (Cluster, error) {
	f.note("init %s", name)
	return Cluster{Name: name}, f.err
}

func (f *fake) NewToken(context.Context) (Token, error) {
	f.note("token")
	return Token{Token: "vmctl-x"}, f.err
}

func (f *fake) Join(_ context.Context, addr, token string) (Cluster, error) {
	f.note("join %s %s", addr, token)
	return Cluster{Name: "shop"}, f.err
}

func (f *fake) Leave(context.Context) error { f.note("leave"); return f.err }

func (f *fake) Cluster(context.Context) (Cluster, error) {
	f.note("cluster")
	return Cluster{Name: "shop"}, f.err
}

func (f *fake) AddWitness(_ context.Context, addr, token string) (Witness, error) {
	f.note("witness %s %s", addr, token)
	return Witness{Name: "w"}, f.err
}

func (f *fake) RemoveWitness(context.Context) error { f.note("no witness"); return f.err }

func (f *fake) SetMode(_ context.Context, change ModeChange) (Cluster, error) {
	f.note("mode %s %s %g", change.Mode, change.Bias, change.DelaySeconds)
	return Cluster{Mode: change.Mode}, f.err
}

func (f *fake) CheckFence(context.Context) (FenceCheck, error) {
	f.note("fence check")
	return FenceCheck{Power: "on"}, f.err
}

func (f *fake) Maintenance(_ context.Context, on bool) (Maintenance, error) {
	f.note("maintenance %t", on)
	return Maintenance{On: on}, f.err
}

func (f *fake) Shutdown(context.Context) (Shutdown, error) {
	f.note("shutdown")
	return Shutdown{Node: "a"}, f.err
}

func (f *fake) NotifyTest(context.Context) ([]NotifyTest, error) {
	f.note("notify test")
	return []NotifyTest{{Target: "syslog", OK: true}}, f.err
}

func (f *fake) Status(context.Context) (Status, error) {
	f.note("status")
	return Status{Summary: "fine"}, f.err
}

func (f *fake) HA(context.Context) (HAStatus, error) { f.note("ha"); return HAStatus{Node: "a"}, f.err }

func (f *fake) Why(_ context.Context, name string) (Why, error) {
	f.note("why %s", name)
	return Why{VM: name}, f.err
}

func (f *fake) Events(ctx context.Context, filter EventFilter) iter.Seq2[Event, error] {
	f.note("events %q %t %t", filter.VM, filter.Follow, filter.Since.IsZero())
	return func(yield func(Event, error) bool) {
		for i, event := range f.events {
			var err error
			if i+1 == f.failAt {
				err = f.err
			}
			if !yield(event, err) {
				return
			}
		}
		if filter.Follow {
			<-ctx.Done()
			close(f.ended)
		}
	}
}

func (f *fake) Route(name string) (http.RoundTripper, error) {
	if f.route == nil {
		return nil, nil
	}
	return f.route(name)
}

// serve runs the API of f on a unix socket of its own.
func serve(t *testing.T, f *fake) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	serveAt(t, f, socket)
	return socket
}

func serveAt(t *testing.T, f *fake, socket string) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	backend := &Backend{
		Node: "a", Machines: f, Operator: f, Clusters: f, Witnesses: f, Thirds: f, Observer: f, Hosts: f, Router: f, Verifier: f.verifier, Resizer: f, Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	server := &http.Server{Handler: backend.Handler(), BaseContext: func(net.Listener) context.Context { return ctx }}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	stop = sync.OnceFunc(func() { cancel(); server.Close(); <-done })
	t.Cleanup(stop)
	return stop
}

func clientOf(t *testing.T, socket string) *Client {
	c := NewClient(socket)
	t.Cleanup(c.Close)
	return c
}

// transport reaches the API at a socket, as the connection between two agents
// does.
func transport(socket string) *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
}
