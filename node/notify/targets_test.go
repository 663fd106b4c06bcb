package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	// A child forked meanwhile would hold the file open for writing.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

var sample = newDelivery("run-1", Event{Kind: "peer-lost", Severity: Alarm, VM: "web", Node: "a", Message: "no word\nfor 3 s",
	Time: time.UnixMilli(1700000000123), State: On}, 2)

// TestFlakyServer: through New and Run, over TLS, a server that fails and hangs
// up at first gets all events in order, each signed.
func TestFlakyServer(t *testing.T) {
	var attempts atomic.Int64
	got := make(chan Delivery, 10)
	problems := make(chan string, 10)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch attempts.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case 2:
			panic(http.ErrAbortHandler) // hangs up
		}
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte("s3cret"))
		fmt.Fprintf(mac, "%s.%s", r.Header.Get("Vmctl-Timestamp"), body)
		var d Delivery
		at, _ := strconv.ParseInt(r.Header.Get("Vmctl-Timestamp"), 10, 64)
		if err := json.Unmarshal(body, &d); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("Vmctl-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) || r.Header.Get("Vmctl-Delivery") != d.ID ||
			time.Since(time.Unix(at, 0)).Abs() > time.Minute {
			problems <- fmt.Sprintf("%v %v %s", err, r.Header, body)
		}
		got <- d
	}))
	defer server.Close()
	ca := write(t, "ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})), 0o644)
	secret := write(t, "secret", "s3cret\n", 0o600)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	n, err := New(Config{{Webhook: server.URL + "/hook?token=hidden", SecretFile: secret, CAFile: ca}}, silent)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	n.Notify(Event{Kind: "peer-lost", Severity: Alarm, Node: "a", State: On, Message: "gone"})
	n.Notify(Event{Kind: "peer-lost", Severity: Info, Node: "a", State: Off, Message: "back"})
	for _, want := range []State{On, Off} {
		select {
		case d := <-got:
			if d.State != want || d.Version != 1 || d.Node != "a" || d.Kind != "peer-lost" {
				t.Errorf("got %+v, want %s", d, want)
			}
		case p := <-problems:
			t.Fatal(p)
		case <-time.After(30 * time.Second):
			t.Fatal("nothing came")
		}
	}
	cancel()
	running.Wait()
	select {
	case p := <-problems:
		t.Error(p)
	default:
	}
}

func TestWebhookAnswers(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	release := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; path {
		case "/slow":
			<-release
		case "/endless":
			w.WriteHeader(http.StatusOK)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			code, _ := strconv.Atoi(path[1:])
			w.Header().Set("Location", other.URL)
			w.WriteHeader(code)
		}
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	defer server.Close()
	defer close(release)
	ca := write(t, "ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})), 0o644)
	for _, test := range []struct {
		path, ca string
		refused  bool
		says     string
		pause    time.Duration
		timeout  time.Duration
	}{
		{path: "/200", ca: ca}, {path: "/204", ca: ca}, {path: "/endless", ca: ca},
		{path: "/301", ca: ca, says: "not followed"}, {path: "/302", ca: ca, says: "not followed"}, {path: "/307", ca: ca, says: "not followed"},
		{path: "/308", ca: ca, says: "not followed"},
		{path: "/400", ca: ca, refused: true, says: "400"}, {path: "/413", ca: ca, refused: true}, {path: "/422", ca: ca, refused: true},
		{path: "/401", ca: ca, says: "401"}, {path: "/404", ca: ca, says: "404"}, {path: "/500", ca: ca, says: "500"},
		{path: "/busy", ca: ca, says: "429", pause: 7 * time.Second},
		{path: "/slow", ca: ca, says: "deadline exceeded", timeout: 2 * time.Second},
		{path: "/200", says: "certificate"}, // not of the system's authorities
	} {
		w, err := newWebhook(Target{Webhook: server.URL + test.path + "?token=hidden", CAFile: test.ca, Timeout: test.timeout})
		if err != nil {
			t.Fatal(err)
		}
		err = w.send(t.Context(), sample)
		good := test.says == "" && !test.refused
		if (err == nil) != good || errors.Is(err, errRefused) != test.refused || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.path, err)
		}
		if a, _ := errors.AsType[after](err); a.pause != test.pause {
			t.Errorf("%s: try again after %v", test.path, a.pause)
		}
		if strings.Contains(fmt.Sprint(err, w.name()), "hidden") {
			t.Errorf("the URL's secret is told: %v, %s", err, w.name())
		}
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
	// The certificate is for another name.
	wrong := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	w, err := newWebhook(Target{Webhook: wrong + "/200", CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.send(t.Context(), sample); err == nil || !strings.Contains(err.Error(), "localhost") {
		t.Errorf("wrong name: %v", err)
	}
	w.url = "https://127.0.0.1:1/?token=hidden"
	if err := w.send(t.Context(), sample); !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "hidden") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestHook(t *testing.T) {
	dir := t.TempDir()
	path := write(t, "hook", "#!/bin/sh\ncd "+dir+"\ncat >input\nenv >environment\necho \"args:$*\" >arguments\ncut -d' ' -f5 /proc/self/stat >group\necho $$ >pid\necho said; exit 3\n", 0o755)
	t.Setenv("AGENTS_OWN", "1")
	var log bytes.Buffer
	h, err := newHook(Target{Exec: path}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.send(t.Context(), sample); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	var d Delivery
	if err := json.Unmarshal([]byte(read("input")), &d); err != nil || d != sample {
		t.Errorf("input %+v, %v", d, err)
	}
	for _, want := range []string{"VMCTL_ID=run-1\n", "VMCTL_KIND=peer-lost\n", "VMCTL_SEVERITY=alarm\n", "VMCTL_VM=web\n", "VMCTL_NODE=a\n",
		"VMCTL_MESSAGE=no word\nfor 3 s\n", "VMCTL_TIME=2023-11-14T22:13:20.123Z\n", "VMCTL_STATE=on\n", "VMCTL_REPEATED=2\n", "VMCTL_DROPPED=0\n"} {
		if !strings.Contains(read("environment"), want) {
			t.Errorf("the environment lacks %q: %s", want, read("environment"))
		}
	}
	if strings.Contains(read("environment"), "AGENTS_OWN") || read("arguments") != "args:\n" || read("group") != read("pid") {
		t.Errorf("environment %s, arguments %s, group %s, pid %s", read("environment"), read("arguments"), read("group"), read("pid"))
	}
	if !strings.Contains(log.String(), "output=said") || !strings.Contains(log.String(), "exit status 3") {
		t.Errorf("log %s", log.String())
	}
}

// TestHookEnds: a program that hangs is killed with its children, when its time
// is up and when ctx ends; one that cannot be started is tried again later.
func TestHookEnds(t *testing.T) {
	for _, test := range []struct {
		name    string
		timeout time.Duration
		want    error
	}{{"timeout", time.Second, nil}, {"ctx", time.Minute, context.Canceled}} {
		child := filepath.Join(t.TempDir(), "child")
		path := write(t, "hook", "#!/bin/sh\ntrap '' TERM\nsleep 1000 &\necho $! >"+child+"\nhead -c 100000 /dev/zero\nwait\n", 0o755)
		h, err := newHook(Target{Exec: path, Timeout: test.timeout}, silent)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var data []byte
		for bound := test.timeout; len(data) == 0 && bound <= time.Minute; bound *= 2 { // it may be over before the program has begun
			h.timeout = bound
			if test.want != nil {
				go func() {
					for began, _ := os.ReadFile(child); len(began) == 0 && ctx.Err() == nil; began, _ = os.ReadFile(child) {
						time.Sleep(5 * time.Millisecond)
					}
					cancel()
				}()
			}
			began := time.Now()
			if err := h.send(ctx, sample); !errors.Is(err, test.want) || time.Since(began) > bound+7*time.Second {
				t.Errorf("%s: %v after %v", test.name, err, time.Since(began))
			}
			data, _ = os.ReadFile(child)
		}
		cancel()
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || bytes.Contains(stat, []byte(") Z ")) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the child lives: %s", test.name, stat)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := h.send(t.Context(), sample); !errors.Is(err, os.ErrNotExist) || errors.Is(err, errRefused) {
			t.Errorf("no program: %v", err)
		}
	}
}
