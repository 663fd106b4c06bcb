package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"vmctl/vm"
)

func TestEveryCallReachesItsBackend(t *testing.T) {
	f := &fake{vm: VM{Name: "web", State: "running"}}
	c := clientOf(t, serve(t, f))
	ctx := t.Context()
	value := func(_ any, err error) error { return err }
	for _, test := range []struct {
		call func() error
		want string
	}{
		{func() error { return value(c.Status(ctx)) }, "status"},
		{func() error { return value(c.HA(ctx)) }, "ha"},
		{func() error { return value(c.Why(ctx, "web")) }, "why web"},
		{func() error { return value(c.Promote(ctx, "web", true)) }, "promote web true"},
		{func() error { return value(c.Promote(ctx, "web", false)) }, "promote web false"},
		{func() error { return value(c.Init(ctx, "shop")) }, "init shop"},
		{func() error { return value(c.NewToken(ctx)) }, "token"},
		{func() error { return value(c.Join(ctx, "b:1", "T")) }, "join b:1 T"},
		{func() error { return value(c.Cluster(ctx)) }, "cluster"},
		{func() error { return c.Leave(ctx) }, "leave"},
		{func() error { return value(c.AddWitness(ctx, "w:1", "T")) }, "witness w:1 T"},
		{func() error { return c.RemoveWitness(ctx) }, "no witness"},
		{func() error { return of(c.Maintenance(ctx, true)) }, "maintenance true"},
		{func() error { return c.RemoveKept(ctx, "web", 7, true) }, "remove kept web 7 true"},
		{func() error { return of(c.Shutdown(ctx)) }, "shutdown"},
		{func() error { return of(c.NotifyTest(ctx)) }, "notify test"},
		{func() error { return value(c.VMs(ctx)) }, "list"},
		{func() error { return value(c.VM(ctx, "web")) }, "show web"},
		{func() error { return value(c.VM(ctx, "a/../b?c#d")) }, "show a/../b?c#d"},
		{func() error { return value(c.Create(ctx, []byte("{name: web, memory: 1G}"))) }, "create web 1G"},
		{func() error { return value(c.Create(ctx, []byte(`{"name":"web","memory":"1G"}`))) }, "create web 1G"},
		{func() error { return value(c.Change(ctx, "web", []byte("cpus: 2"))) }, "change web cpus: 2"},
		{func() error { return value(c.Act(ctx, "web", Start, 0)) }, "start web 0s"},
		{func() error { return value(c.Act(ctx, "web", Stop, 1500*time.Millisecond)) }, "stop web 1.5s"},
		{func() error { return value(forcing(c).Create(ctx, []byte("{name: web, memory: 1G}"))) }, "create web 1G by force"},
		{func() error { return value(forcing(c).Change(ctx, "web", []byte("cpus: 2"))) }, "change web cpus: 2 by force"},
		{func() error { return value(forcing(c).Act(ctx, "web", Start, time.Second)) }, "start web 1s by force"},
		{func() error { return value(c.Act(ctx, "web", Kill, 0)) }, "kill web 0s"},
		{func() error { return value(c.ResizeDisk(ctx, "web", "disk0", "+1G")) }, "resize web disk0 +1G"},
		{func() error { return value(forcing(c).ResizeDisk(ctx, "web", "a/b", "1G")) }, "resize web a/b 1G by force"},
		{func() error { return value(c.Act(ctx, "web", Reset, 0)) }, "reset web 0s"},
		{func() error { return value(c.Act(ctx, "web", Pause, 0)) }, "pause web 0s"},
		{func() error { return value(c.Act(ctx, "web", Unpause, 0)) }, "unpause web 0s"},
		{func() error { return c.Remove(ctx, "web", false) }, "remove web false"},
		{func() error { return c.Remove(ctx, "web", true) }, "remove web true"},
		{func() error { return c.Events(ctx, EventFilter{VM: "web"}, nil) }, `events "web" false true`},
	} {
		f.calls = nil
		if err := test.call(); err != nil {
			t.Errorf("%s: %v", test.want, err)
		}
		if got := f.noted(); len(got) != 1 || strings.ReplaceAll(got[0], "GiB", "G") != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestValuesTravel(t *testing.T) {
	want := exampleVM()
	f := &fake{vm: want}
	got, err := clientOf(t, serve(t, f)).VM(t.Context(), "web")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n got %+v\nwant %+v", err, got, want)
	}
}

func TestCodesAndStatus(t *testing.T) {
	f := &fake{}
	socket := serve(t, f)
	for code, status := range map[Code]int{
		Failed: 500, Usage: 400, NotFound: 404, Conflict: 409, Unreachable: 502, Unsafe: 403, "newer": 500,
	} {
		f.err = fmt.Errorf("wrapped: %w", Errorf(code, "it is %s", "so").WithHint("do %s", "that"))
		response, body := raw(t, socket, http.MethodGet, "/v1/vms/web", "")
		want := fmt.Sprintf(`{"error":{"code":%q,"message":"it is so","hint":"do that"}}`+"\n", code)
		if response.StatusCode != status || body != want || response.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", code, response.StatusCode, body)
		}
		_, err := clientOf(t, socket).VM(t.Context(), "web")
		var e *Error
		if !errors.As(err, &e) || *e != (Error{code, "it is so", "do that"}) {
			t.Errorf("%s came back as %+v", code, err)
		}
	}
	for _, plain := range []struct {
		err  error
		code Code
	}{{io.ErrUnexpectedEOF, Failed}, {&vm.SpecError{Problems: []string{"x"}}, Usage}, {context.DeadlineExceeded, Failed}} {
		f.err = plain.err
		_, err := clientOf(t, socket).VM(t.Context(), "web")
		if AsError(err).Code != plain.code {
			t.Errorf("%v came back as %+v", plain.err, err)
		}
	}
}

func TestBadRequests(t *testing.T) {
	f := &fake{}
	socket := serve(t, f)
	big := strings.Repeat("x", maxBody+1)
	for _, test := range []struct {
		method, path, body string
		status             int
		say                string
	}{
		{"POST", "/v1/cluster/init", `{"name":"a","nmae":"b"}`, 400, "nmae"},
		{"POST", "/v1/cluster/init", `{"name":"a"} {"name":"b"}`, 400, "more behind"},
		{"POST", "/v1/cluster/init", ``, 400, "EOF"},
		{"POST", "/v1/cluster/init", `[]`, 400, "cannot unmarshal"},
		{"POST", "/v1/cluster/init", `{"name":"` + big + `"}`, 400, "too large"},
		{"POST", "/v1/cluster/join", `{"addr":1}`, 400, "Addr"},
		{"POST", "/v1/witness", `{`, 400, "EOF"},
		{"POST", "/v1/ha/web/promote", `{"confirm":true}`, 400, "confirm"},
		{"POST", "/v1/vms", "name: web\ncpuz: 2\n", 400, "cpuz"},
		{"POST", "/v1/vms", "", 400, "empty"},
		{"POST", "/v1/vms", "name: a\n---\nname: b\n", 400, "second document"},
		{"POST", "/v1/vms", "\x00\xff", 400, ""},
		{"POST", "/v1/vms", "name: " + big, 400, "too large"},
		{"POST", "/v1/vms", "a: &a [*a, *a]\n", 400, ""},
		{"PATCH", "/v1/vms/web", big + "x", 400, "too large"},
		{"POST", "/v1/vms/web/stop?timeout=-1", "", 400, "timeout"},
		{"POST", "/v1/vms/web/stop?timeout=NaN", "", 400, "timeout"},
		{"POST", "/v1/vms/web/stop?timeout=1e9", "", 400, "timeout"},
		{"POST", "/v1/vms/web/stop?timeout=long", "", 400, "timeout"},
		{"GET", "/v1/events?since=yesterday", "", 400, "yesterday"},
		{"POST", "/v1/vms/web/console", "", 400, "Upgrade"},
		{"GET", "/", "", 404, "no such call"},
		{"GET", "/v1", "", 404, "no such call"},
		{"GET", "/v2/vms", "", 404, "no such call"},
		{"PUT", "/v1/vms", "", 404, "PUT /v1/vms"},
		{"GET", "/v1/vms/web/stop", "", 404, "no such call"},
		{"POST", "/v1/vms/web/explode", "", 404, "explode"},
		{"DELETE", "/v1/status", "", 404, "no such call"},
	} {
		response, body := raw(t, socket, test.method, test.path, test.body)
		var failure struct{ Error *Error }
		if err := json.Unmarshal([]byte(body), &failure); err != nil || failure.Error == nil {
			t.Errorf("%s %s: not an error in JSON: %q", test.method, test.path, body)
			continue
		}
		if response.StatusCode != test.status || !strings.Contains(failure.Error.Message, test.say) {
			t.Errorf("%s %s: %d %q", test.method, test.path, response.StatusCode, failure.Error.Message)
		}
	}
	if got := f.noted(); len(got) != 0 {
		t.Errorf("the backend was asked: %q", got)
	}
}

// A name that is a step of a path must not become another call: a POST that is
// redirected turns into a GET that succeeds.
func TestNamesThatAreSteps(t *testing.T) {
	f := &fake{vm: VM{Name: "start"}}
	c := clientOf(t, serve(t, f))
	for _, name := range []string{"", ".", ".."} {
		_, act := c.Act(t.Context(), name, Start, 0)
		_, show := c.VM(t.Context(), name)
		_, why := c.Why(t.Context(), name)
		_, change := c.Change(t.Context(), name, nil)
		_, logs := c.Logs(t.Context(), name, false)
		_, console := c.Console(t.Context(), name)
		for i, err := range []error{act, show, why, change, logs, console, c.Remove(t.Context(), name, true)} {
			if codeOf(err).Code != NotFound {
				t.Errorf("%q, call %d: %v", name, i, err)
			}
		}
	}
	if err := c.call(t.Context(), http.MethodPost, "/v1/vms//start", nil, nil); err == nil {
		t.Error("a redirect was taken for a success")
	}
	if got := f.noted(); len(got) != 0 {
		t.Errorf("the backend was asked: %q", got)
	}
}

// codeOf is AsError for an error that may be nil.
func codeOf(err error) *Error {
	if err == nil {
		return &Error{}
	}
	return AsError(err)
}

func TestNoAgent(t *testing.T) {
	c := clientOf(t, filepath.Join(t.TempDir(), "none"))
	_, err := c.Status(t.Context())
	if e := codeOf(err); e.Code != Unreachable || !strings.Contains(e.Hint, "vmctl node run") {
		t.Fatalf("%+v", e)
	}
}

// A call that the agent's end interrupted is not done, even one without a
// result.
func TestAgentStopsDuringCall(t *testing.T) {
	f := &fake{block: make(chan struct{})}
	socket := filepath.Join(t.TempDir(), "s")
	stop := serveAt(t, f, socket)
	failed := make(chan error, 1)
	go func() { _, err := clientOf(t, socket).Act(t.Context(), "web", Stop, 0); failed <- err }()
	for len(f.noted()) == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	if e := codeOf(<-failed); e.Code != Unreachable {
		t.Fatalf("%+v", e)
	}

	f = &fake{err: context.Canceled}
	request, err := http.NewRequestWithContext(canceled(t), http.MethodDelete, "http://a/v1/cluster", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := &recorder{header: http.Header{}}
	(&Backend{Clusters: f}).Handler().ServeHTTP(answer, request)
	if answer.status != http.StatusBadGateway {
		t.Fatalf("an interrupted call was answered with %d", answer.status)
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func TestDefectsStayInside(t *testing.T) {
	f := &fake{vm: VM{Name: "web", Spec: math.NaN()}}
	socket := serve(t, f)
	c := clientOf(t, socket)
	if _, err := c.VM(t.Context(), "web"); codeOf(err).Code != Failed {
		t.Errorf("a value that has no JSON: %v", err)
	}
	f.console = nil // calling it panics
	if _, err := c.Console(t.Context(), "web"); codeOf(err).Code != Failed || strings.Contains(err.Error(), "goroutine") {
		t.Errorf("a panic: %v", err)
	}
	f.vm = VM{Name: "web"}
	if _, err := c.VM(t.Context(), "web"); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

// raw makes a request without the client's help.
func raw(t *testing.T, socket, method, path, body string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://a"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport(socket).RoundTrip(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(data)
}

// forcing is a client whose calls have force.
func forcing(c *Client) *Client {
	f := *c
	f.Force = true
	return &f
}

func of(_ any, err error) error { return err }
