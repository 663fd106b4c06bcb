package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vmctl/ha/golden"
	"vmctl/node/api"
)

// agent answers every call with the same and notes what it was asked.
type agent struct {
	mu     sync.Mutex
	calls  []string
	body   string
	answer any
	status int
	open   atomic.Int32 // connections
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.calls, a.body = append(a.calls, r.Method+" "+r.URL.Path), string(body)
	answer, status := a.answer, a.status
	a.mu.Unlock()
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// agentAt makes VMCTL_SOCKET lead to an agent that is served by handler.
func agentAt(t *testing.T, handler http.Handler, state func(net.Conn, http.ConnState)) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ConnState: state}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-done })
	t.Setenv("VMCTL_SOCKET", socket)
}

func startAgent(t *testing.T, answer any) *agent {
	a := &agent{answer: answer, status: http.StatusOK}
	agentAt(t, a, func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			a.open.Add(1)
		}
	})
	return a
}

var exampleVM = api.VM{
	Name: "web", UUID: "11111111-2222-4333-8444-555555555555", State: "running", Owner: "a", Epoch: 3, Node: "a",
	Protection: api.Protection{Level: "resume", IntervalSeconds: 1}, Replica: &api.Replica{Node: "b", State: "synced"},
	CPUs: 2, Memory: "1GiB", Spec: map[string]any{"name": "web", "cpus": 2},
}

func TestCreateSendsASpec(t *testing.T) {
	a := startAgent(t, exampleVM)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	back, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	file := filepath.Join(dir, "web.json")
	if err := os.WriteFile(file, []byte(`{"name": "web"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var sent strings.Builder
	for _, line := range []string{
		"vm create web",
		"vm create --start web",
		"vm create web --cpus 2 --memory 1G --disk image=d.qcow2,size=20G,format=qcow2 --disk 5G,name=data --nic bridge=br0 " +
			"--nic user,forward=tcp:127.0.0.1:80:80,forward=udp:127.0.0.1:53:53 --protection resume --interval 0.5 --resync-rate 50M --restart never --isolation stop --autostart",
		"vm create --kernel vmlinuz --initrd /boot/initrd --append console=ttyS0,115200 --machine pc-q35-7.2 --cpu max,+x2apic --accel tcg web",
		"vm create -f web.json", "vm create --file=" + file, "vm create -f -",
		"vm set web --autostart=false --protection none", "vm set --memory 2G web",
		"vm set web --append ''", "vm set web --kernel ''",
		"vm create web --recovery restart --priority 10 --after db --after cache --attempts 2 --backoff 1.5 --failback when-synced --settle 30 --home b --force",
		"vm set web --priority 0 --after ''", "vm set web --resync-rate 0", "vm start web --force", "vm disk resize web disk0 +10G",
	} {
		a.calls = nil
		code, _, stderr := run("name: piped\n", words(line)...)
		if code != 0 || stderr != "" {
			t.Errorf("vmctl %s: exit code %d, %s", line, code, stderr)
		}
		shown := strings.ReplaceAll(line, dir, "DIR")
		fmt.Fprintf(&sent, "# vmctl %s\n# %s\n%s\n", shown, strings.Join(a.calls, ", "), strings.ReplaceAll(a.body, dir, "DIR"))
	}
	t.Chdir(back)
	golden.Compare(t, "create.golden", sent.String())
}

// Whatever is asked for as JSON is JSON, and nothing but it.
func TestJSONOutput(t *testing.T) {
	lists := map[string]any{
		"vm ls": []api.VM{exampleVM}, "status": api.Status{Summary: "s", VMs: []api.VM{exampleVM}}, "node status": api.Status{},
		"cluster init shop": api.Cluster{}, "cluster token": api.Token{Token: "T"}, "cluster join a:1 --token T": api.Cluster{Name: "shop"},
		"cluster status": api.Cluster{}, "cluster leave": struct{}{}, "witness add a:1 --token T": api.Witness{}, "witness remove": struct{}{},
		"witness status": api.Cluster{Witness: &api.Witness{Name: "w"}}, "ha status": api.HAStatus{}, "ha why web": api.Why{Isolation: "stop: when its lease ends it is ended here"},
		"ha promote web": exampleVM, "vm show web": exampleVM, "vm create web": exampleVM, "vm set web --cpus 1": exampleVM,
		"vm start web": exampleVM, "vm stop web": exampleVM, "vm rm web": struct{}{}, "vm wait web": exampleVM,
		"vm wait web --state synced": exampleVM, "events": api.Event{Kind: "x"},
		"vm disk resize web disk0 20G": exampleVM, "vm kept web": exampleVM, "vm kept web --rm 3": struct{}{},
		"node maintenance on": api.Maintenance{On: true}, "node shutdown": api.Shutdown{Moved: []string{"web"}}, "node notify-test": []api.NotifyTest{{OK: true}},
	}
	for line, answer := range lists {
		startAgent(t, answer)
		code, stdout, stderr := run("", append(words(line), "--output", "json")...)
		if code != 0 || stderr != "" || !json.Valid([]byte(stdout)) {
			t.Errorf("vmctl %s: exit code %d, out %q, err %q", line, code, stdout, stderr)
		}
		code, stdout, stderr = run("", words(line)...)
		if code != 0 || stdout == "" || stderr != "" || json.Valid([]byte(stdout)) {
			t.Errorf("vmctl %s as a table: exit code %d, out %q, err %q", line, code, stdout, stderr)
		}
	}
}

func TestRefusalsOfTheAgent(t *testing.T) {
	a := startAgent(t, nil)
	for code, want := range map[api.Code]int{api.Failed: 1, api.Usage: 2, api.NotFound: 3, api.Conflict: 4, api.Unreachable: 5, api.Unsafe: 6, "newer": 1} {
		a.mu.Lock()
		a.status, a.answer = 409, map[string]any{"error": api.Error{Code: code, Message: "it is so", Hint: "do that"}}
		a.mu.Unlock()
		for _, line := range []string{"vm ls", "vm start web", "vm rm web", "cluster leave", "vm console web", "vm logs web", "events -f", "vm wait web"} {
			got, stdout, stderr := run("", words(line)...)
			if got != want || stdout != "" || stderr != "vmctl: it is so\n  do that\n" {
				t.Errorf("%s of %s: exit code %d, out %q, err %q", code, line, got, stdout, stderr)
			}
		}
	}
	for _, broken := range []any{"", 5, nil, map[string]any{"error": nil}, map[string]any{"error": map[string]any{}}} {
		a.mu.Lock()
		a.status, a.answer = 500, broken
		a.mu.Unlock()
		if code, _, stderr := run("", "vm", "rm", "web"); code != 1 || stderr == "" {
			t.Errorf("an answer of %v: exit code %d, %q", broken, code, stderr)
		}
	}
}

func TestWait(t *testing.T) {
	a := startAgent(t, exampleVM)
	code, _, stderr := run("", "vm", "wait", "web", "--state", "stopped", "--timeout", "450ms")
	if code != 1 || !strings.Contains(stderr, "it is running after 450ms") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if n := a.open.Load(); n != 1 {
		t.Errorf("%d connections were made to wait", n)
	}
	if code, _, stderr := run("", "vm", "wait", "web", "--timeout", "0s"); code != 1 {
		t.Errorf("no time to wait: exit code %d, %s", code, stderr)
	}
}

// What is waited for is what a wait in vain speaks of.
func TestWaitForAReplica(t *testing.T) {
	for say, v := range map[string]api.VM{
		"it is running, its replica resync 40 %": {State: "running", Protection: api.Protection{Level: "resume"}, Replica: &api.Replica{State: "resync", Progress: 0.4}},
		"it is not protected and has no replica": {State: "running", Protection: api.Protection{Level: "none"}},
		"it is stopped, without a replica":       {State: "stopped", Protection: api.Protection{Level: "restart"}},
	} {
		startAgent(t, v)
		if code, _, stderr := run("", "vm", "wait", "web", "--state", "synced", "--timeout", "450ms"); code != 1 || !strings.Contains(stderr, say) {
			t.Errorf("exit code %d, %s, want %q", code, stderr, say)
		}
	}
}

// A guest that was made and does not start is there all the same.
func TestCreateThatDoesNotStart(t *testing.T) {
	agentAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/start") {
			w.WriteHeader(http.StatusInternalServerError)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": api.Error{Code: api.Failed, Message: "start web: no such CPU"}})
			return
		}
		_ = json.NewEncoder(w).Encode(exampleVM)
	}), nil)
	code, stdout, stderr := run("", "vm", "create", "web", "--start")
	if code != 1 || stdout != "" || stderr != "vmctl: start web: no such CPU\n  web is made and stays: `vmctl vm start web` tries again, `vmctl vm rm web` removes it.\n" {
		t.Errorf("exit code %d, out %q, err %q", code, stdout, stderr)
	}
}

// TestNumbersInWords: one thing is not spoken of as of several.
func TestNumbersInWords(t *testing.T) {
	one := api.Stay{VM: "db", Reason: "r"}
	for _, c := range []struct {
		line   string
		answer any
		say    string
	}{
		{"node maintenance on", api.Maintenance{Node: "a", Stay: []api.Stay{one}}, "1 guest stays on a\n"},
		{"node maintenance on", api.Maintenance{Node: "a", Stay: []api.Stay{one, one}}, "2 guests stay on a\n"},
		{"node shutdown", api.Shutdown{Node: "a", Stay: []api.Stay{one}}, "1 guest could not be stopped on a\n"},
		{"node notify-test", []api.NotifyTest{{}}, "1 of 1 target did not take it"},
		{"node notify-test", []api.NotifyTest{{}, {OK: true}}, "1 of 2 targets did not take it"},
		{"node status", api.Status{Node: api.Node{CPUs: 1}}, "1 CPU, "},
		{"node status", api.Status{Node: api.Node{Alarms: []api.Alarm{{Kind: "clock", Text: "t"}}}}, "clock: t"},
		{"status", api.Status{Node: api.Node{Guests: 1}}, ", 1 guest\n"},
		{"status", api.Status{Cluster: &api.Cluster{Members: []api.Member{{Name: "b"}}}}, "NOT REACHABLE, never heard\n"},
		{"cluster status", api.Cluster{Self: "a", Members: []api.Member{{Name: "b"}}}, "never"},
		{"witness status", api.Cluster{Witness: &api.Witness{}}, "NOT REACHABLE, never heard\n"},
	} {
		startAgent(t, c.answer)
		if _, stdout, stderr := run("", words(c.line)...); !strings.Contains(stdout+stderr, c.say) || strings.Contains(stdout, "never ago") {
			t.Errorf("vmctl %s says\n%s%s\nand not %q", c.line, stdout, stderr, c.say)
		}
	}
}

// An agent that never answers holds no command beyond its time or a signal.
func TestInterrupted(t *testing.T) {
	opened, left := make(chan struct{}), make(chan struct{}) // a console
	silent := func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/console") {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		close(opened)
		_, _ = conn.Read(make([]byte, 1))
		conn.Close()
		close(left)
	}
	agentAt(t, http.HandlerFunc(silent), nil)
	if code, _, stderr := run("", "vm", "wait", "web", "--timeout", "100ms"); code != 1 || !strings.Contains(stderr, "has not answered") {
		t.Errorf("wait: exit code %d, %s", code, stderr)
	}
	caught := make(chan os.Signal, 100) // the test itself is not to end
	signal.Notify(caught, os.Interrupt)
	defer signal.Stop(caught)
	pipe, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	for line, want := range map[string]int{"vm ls": interrupted, "vm create -f -": interrupted, "vm stop web": interrupted, "vm console web": interrupted, "events -f": 0} {
		done := make(chan int, 1)
		go func() { done <- Main(append([]string{"vmctl"}, words(line)...), pipe, io.Discard, io.Discard) }()
		if line == "vm console web" {
			<-opened
		}
		for code := -1; code < 0; { // until the command listens for signals the test does
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			<-caught // a late signal would end the next command before it begins
			select {
			case code = <-done:
				if code != want {
					t.Errorf("%s: exit code %d after a signal, want %d", line, code, want)
				}
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	<-left
}

// What did not work is on the screen and in the exit code.
func TestNodeService(t *testing.T) {
	for line, c := range map[string]struct {
		answer any
		code   int
		say    string
	}{
		"node notify-test": {[]api.NotifyTest{{Target: "syslog", OK: true}, {Target: "webhook x", Error: "403 Forbidden"}}, 1, "webhook x  FAILED: 403 Forbidden"},
		"node maintenance on": {api.Maintenance{Moved: []string{"web"}, Stay: []api.Stay{{VM: "db", Reason: "it is not protected"}},
			Stopped: []api.Stay{{VM: "old", Reason: "its replica is outdated"}}}, 4, "old  is stopped and stays: its replica is outdated"},
		"node shutdown": {api.Shutdown{Stopped: []api.Stay{{VM: "db", Reason: "guest; it is not protected"}}, Stay: []api.Stay{{VM: "web", Reason: "hangs"}}}, 1,
			"db   was stopped: guest; it is not protected"},
		"vm kept web": {api.VM{Kept: []api.Kept{{Node: "b", Epoch: 3, Path: "/p", Bytes: 3 << 20}}}, 0, "3.0 MiB  /p"},
		"node status": {api.Status{Node: api.Node{Notify: []api.NotifyTarget{{Target: "webhook x", Delivered: 3, Waiting: 2, Lost: 1, Error: "no route"}}}}, 0,
			"webhook x: 3 delivered, 2 WAIT, 1 LOST: no route"},
		"status":         {api.Status{Cluster: &api.Cluster{Members: []api.Member{{Name: "b", State: api.MemberMaintenance}}}}, 0, "in maintenance, not reachable"},
		"cluster status": {api.Cluster{Self: "a", Members: []api.Member{{Name: "b", State: api.MemberDown}}}, 0, "NO, shut down"},
	} {
		startAgent(t, c.answer)
		if code, stdout, stderr := run("", words(line)...); code != c.code || !strings.Contains(stdout, c.say) || (code != 0) != (stderr != "") {
			t.Errorf("vmctl %s: exit code %d, out\n%s, err %q", line, code, stdout, stderr)
		}
	}
}
