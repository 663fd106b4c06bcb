package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmctl/node"
	"vmctl/node/api"
	"vmctl/node/notify"
)

// ear is a webhook that notes what it hears.
type ear struct {
	*httptest.Server
	mu    sync.Mutex
	heard []string
}

func newEar(t *testing.T) *ear {
	e := &ear{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d notify.Delivery
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			t.Error(err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.heard = append(e.heard, strings.TrimPrefix(d.VM+"/", "/")+d.Kind+string(d.State))
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *ear) has(word string) func() bool {
	return func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return slices.Contains(e.heard, word)
	}
}

// all is what it heard.
func (e *ear) all() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.heard, " ")
}

// alarms lists the kinds that a node shows.
func (a *agent) alarms(t *testing.T) (kinds []string) {
	t.Helper()
	status, err := a.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, alarm := range status.Node.Alarms {
		kinds = append(kinds, alarm.Kind)
	}
	return kinds
}

// eventKinds lists the kinds of events that a node has recorded.
func (a *agent) eventKinds(t *testing.T) (kinds []string) {
	t.Helper()
	err := a.Events(t.Context(), api.EventFilter{}, func(e api.Event) error {
		kinds = append(kinds, e.Kind)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

// hear waits until both nodes hear each other.
func hear(t *testing.T, agents ...*agent) {
	t.Helper()
	for _, n := range agents {
		eventually(t, "the nodes to hear each other", func() bool {
			cluster, err := n.Cluster(t.Context())
			return err == nil && len(cluster.Members) == 2 && cluster.Members[0].Reachable && cluster.Members[1].Reachable
		})
	}
}

// TestNotifications: a webhook and a program hear of a peer that fails and of
// its return, from an agent that has a target which hangs, too; the node shows
// how each target fares, and a test says which one fails.
func TestNotifications(t *testing.T) {
	t.Parallel()
	ear := newEar(t)
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hangs.Close()
	defer close(release)
	dir := t.TempDir()
	program, log := filepath.Join(dir, "hook"), filepath.Join(dir, "log")
	script := fmt.Sprintf("#!/bin/sh\necho \"$VMCTL_NODE $VMCTL_KIND $VMCTL_STATE\" >>%s\n[ $VMCTL_KIND != notify-test ]\n", log)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	config := dirs(t, "a")
	config.Notify = notify.Config{
		{Webhook: hangs.URL, Timeout: time.Second}, {Webhook: ear.URL, Least: notify.Alarm}, {Exec: program, Least: notify.Alarm},
	}
	a, b := run(t, config), startAgent(t, "b")
	join(t, a, b)
	b.stop()
	eventually(t, "the webhook to hear of the failure", ear.has("peer-loston"))
	b = run(t, b.config)
	eventually(t, "the webhook to hear of the return", ear.has("peer-lostoff"))
	if ear.has("agent-started")() {
		t.Error("a webhook for alarms hears of everything")
	}
	eventually(t, "the program to have run", func() bool {
		data, _ := os.ReadFile(log)
		return strings.Contains(string(data), "a peer-lost on\n") && strings.Contains(string(data), "a peer-lost off\n")
	})
	eventually(t, "the node to show how its targets fare", func() bool {
		status, err := a.Status(t.Context())
		if err != nil || len(status.Node.Notify) != 3 {
			t.Fatalf("%+v, %v", status.Node.Notify, err)
		}
		hangs, webhook, program := status.Node.Notify[0], status.Node.Notify[1], status.Node.Notify[2]
		return hangs.Waiting > 0 && hangs.Delivered == 0 && webhook.Waiting == 0 && webhook.Delivered > 1 && program.Delivered > 1
	})
	tests, err := a.NotifyTest(t.Context())
	if err != nil || len(tests) != 3 || tests[0].OK || !tests[1].OK || tests[2].OK || !strings.Contains(tests[2].Error, "exit status 1") {
		t.Errorf("%+v, %v", tests, err)
	}
	if !ear.has("notify-test")() {
		t.Error("the webhook did not hear of the test")
	}
	want(t, "a test without targets", of(b.NotifyTest(t.Context())), api.Conflict, "notify")
}

// TestNotificationsAfterARestart: what a target had not got when the agent was
// stopped it gets from the next one, and nothing twice.
func TestNotificationsAfterARestart(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	away.Store(true)
	ear := newEar(t)
	shut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		ear.Config.Handler.ServeHTTP(w, r)
	}))
	defer shut.Close()
	config := dirs(t, "a")
	config.Notify = notify.Config{{Webhook: shut.URL}}
	create := func(a *agent, name string) {
		t.Helper()
		if _, err := a.Create(t.Context(), []byte("{name: "+name+", memory: 64M}")); err != nil {
			t.Fatal(err)
		}
	}
	a := run(t, config)
	create(a, "one")
	a.stop()
	away.Store(false)
	for _, name := range []string{"two", "three"} { // it has heard all when it hears of the last
		a = run(t, config)
		create(a, name)
		eventually(t, name+" to be told", ear.has(name+"/guest-created"))
		a.stop()
	}
	if got := ear.all(); !strings.HasPrefix(got, "agent-started ") || strings.Count(got, "one/guest-created agent-stopping") != 1 ||
		strings.Count(got, "one/guest-created") != 1 || strings.Count(got, "two/guest-created") != 1 {
		t.Errorf("told %q", got)
	}
}

func TestNotifyThatCannotWork(t *testing.T) {
	t.Parallel()
	config := dirs(t, "a")
	config.Notify = notify.Config{{Exec: filepath.Join(t.TempDir(), "none")}}
	want(t, "a program that is not there", refusedStart(t, config), api.Usage, "notify")
	file := filepath.Join(t.TempDir(), "c")
	for text, say := range map[string]string{
		"notify: [{webhok: x}]":                           "webhok",
		"notify: [{webhook: 'https://x/', syslog: true}]": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := node.ReadConfig(file)
		if say != "" {
			want(t, text, err, api.Usage, say)
			continue
		}
		config.StateDir, config.RuntimeDir, config.RAMDir = t.TempDir(), t.TempDir(), t.TempDir()
		want(t, text, refusedStart(t, config), api.Usage, "target 1")
	}
}

// TestMaintenanceOfANode: it lasts over a start of the agent, the peer is told
// and takes the node's absence for no failure, and nothing is made, started or
// handed over where it is on.
func TestMaintenanceOfANode(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	if _, err := b.Create(ctx, []byte("{name: web, memory: 64M}")); err != nil {
		t.Fatal(err)
	}
	report, err := b.Maintenance(ctx, true)
	if err != nil || !report.On || len(report.Stay) != 0 || len(report.Stopped) != 1 || !strings.Contains(report.Stopped[0].Reason, "not protected") {
		t.Errorf("%+v, %v", report, err)
	}
	// The peer was told before the command returned.
	if got := a.alarms(t); !slices.Equal(got, []string{"peer-maintenance"}) {
		t.Errorf("the peer shows %q", got)
	}
	cluster, err := a.Cluster(ctx)
	if err != nil || cluster.Members[1].State != api.MemberMaintenance {
		t.Errorf("%+v, %v", cluster, err)
	}
	want(t, "a guest made in maintenance", of(b.Create(ctx, []byte("{name: x, memory: 64M}"))), api.Conflict, "maintenance off")
	want(t, "a start in maintenance", of(b.Act(ctx, "web", api.Start, 0)), api.Conflict, "maintenance off")

	b.stop()
	eventually(t, "the peer to be missed", func() bool { return slices.Contains(a.eventKinds(t), "peer-away") })
	if got := a.alarms(t); !slices.Equal(got, []string{"peer-maintenance"}) {
		t.Errorf("while it is away: %q", got)
	}
	b = run(t, b.config)
	hear(t, a, b)
	status, err := b.Status(ctx)
	if err != nil || !status.Node.Maintenance {
		t.Errorf("after a start of the agent: %+v, %v", status.Node, err)
	}
	report, err = a.Maintenance(ctx, true) // both at once
	if err != nil || len(report.Moved) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	why, err := b.Why(ctx, "web")
	if err != nil || !strings.Contains(why.Reason, "a is in maintenance: it is no target of a handover") {
		t.Errorf("why: %+v, %v", why, err)
	}
	eventually(t, "the guest to be known to the peer", func() bool { return of(a.VM(ctx, "web")) == nil })
	for _, n := range []*agent{a, b} {
		if _, err := n.Maintenance(ctx, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*agent{a, b} {
		eventually(t, "the alarms to end", func() bool { return len(n.alarms(t)) == 0 })
	}
	if slices.Contains(a.eventKinds(t), "peer-lost") {
		t.Error("maintenance was taken for a failure")
	}
}

// TestShutdownOfANode: the agent ends with the command that empties the node,
// and the peer takes that for no failure, either.
func TestShutdownOfANode(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	report, err := b.Shutdown(ctx)
	if err != nil || report.Node != "b" {
		t.Fatalf("%+v, %v", report, err)
	}
	eventually(t, "the agent to end", func() bool { _, err := b.Status(ctx); return err != nil })
	b.stop()
	if got := a.alarms(t); !slices.Equal(got, []string{"peer-off"}) {
		t.Errorf("the peer shows %q", got)
	}
	eventually(t, "the peer to be missed", func() bool { return slices.Contains(a.eventKinds(t), "peer-away") })
	b = run(t, b.config)
	eventually(t, "the alarm to end", func() bool { return len(a.alarms(t)) == 0 })
	if _, err := b.Create(ctx, []byte("{name: web, memory: 64M}")); err != nil {
		t.Errorf("after the return: %v", err)
	}
	if slices.Contains(a.eventKinds(t), "peer-lost") {
		t.Error("a planned shutdown was taken for a failure")
	}
}

// power is a host that is, or is not, going down.
type power struct {
	stopping bool
	mu       sync.Mutex
	extended int
}

func (p *power) Stopping(context.Context) bool { return p.stopping }
func (p *power) Extend(time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.extended++
}
func (p *power) StopService(context.Context) (bool, error) { return false, nil }

// TestStopOfTheHost: an agent that is ended with its host says so to the peer;
// one that is ended alone does not.
func TestStopOfTheHost(t *testing.T) {
	t.Parallel()
	for _, stopping := range []bool{false, true} {
		config, p := dirs(t, "b"), &power{stopping: stopping}
		config.Host = p
		a, b := startAgent(t, "a"), run(t, config)
		join(t, a, b)
		b.stop()
		want := map[bool]string{false: "peer-lost", true: "peer-off"}[stopping]
		eventually(t, "the alarm "+want, func() bool { return slices.Equal(a.alarms(t), []string{want}) })
		if p.extended > 0 != stopping {
			t.Errorf("host going down: %v, asked %d times for time", stopping, p.extended)
		}
		a.stop()
	}
}

// TestKeptDisks: what a former owner kept is seen on both nodes, and removed
// through either of them.
func TestKeptDisks(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	v, err := a.Create(ctx, []byte("{name: web, memory: 64M}"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.config.StateDir, "guests", v.UUID, "kept-epoch-7")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Maintenance(ctx, false); err != nil { // the nodes compare now
		t.Fatal(err)
	}
	eventually(t, "both to show it", func() bool {
		for _, n := range []*agent{a, b} {
			v, err := n.VM(ctx, "web")
			if err != nil || len(v.Kept) != 1 || v.Kept[0].Node != "b" || v.Kept[0].Path != path {
				return false
			}
		}
		return true
	})
	want(t, "disks of no epoch", a.RemoveKept(ctx, "web", 8, false), api.NotFound, "vm kept")
	if err := a.RemoveKept(ctx, "web", 7, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) || !slices.Contains(b.eventKinds(t), "kept-removed") {
		t.Errorf("%v, %q", err, b.eventKinds(t))
	}
	if v, err := a.VM(ctx, "web"); err != nil || len(v.Kept) != 0 {
		t.Errorf("%+v, %v", v.Kept, err)
	}
}
