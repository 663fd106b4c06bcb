package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair is two agents; a guest belongs to the second one.
func pair(t *testing.T) (first, second *fake, c *Client, stop func()) {
	first, second = &fake{vm: VM{Name: "web", State: "unknown", Node: "a"}}, &fake{vm: VM{Name: "web", State: "running", Node: "b"}}
	socket := filepath.Join(t.TempDir(), "b")
	stop = serveAt(t, second, socket)
	first.route = func(string) (http.RoundTripper, error) { return transport(socket), nil }
	// The second one would send everything back: it must not be asked to.
	back := transport(serve(t, first))
	second.route = func(string) (http.RoundTripper, error) { return back, nil }
	return first, second, clientOf(t, serve(t, first)), stop
}

func TestPassedToTheOwnerOnce(t *testing.T) {
	first, second, c, _ := pair(t)
	v, err := c.VM(t.Context(), "web")
	if err != nil || v.Node != "b" {
		t.Fatal(v, err)
	}
	if _, err := c.Act(t.Context(), "web", Stop, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Change(t.Context(), "web", []byte("cpus: 2")); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), "web", true); err != nil {
		t.Fatal(err)
	}
	want := "show web;stop web 2s;change web cpus: 2;remove web true"
	if got := strings.Join(second.noted(), ";"); got != want {
		t.Errorf("the owner was asked %q", got)
	}
	if got := first.noted(); len(got) != 0 {
		t.Errorf("the other one was asked %q", got)
	}
	second.err = Errorf(Conflict, "it is running").WithHint("stop it")
	_, err = c.Act(t.Context(), "web", Start, 0)
	var e *Error
	if !errors.As(err, &e) || *e != (Error{Conflict, "it is running", "stop it"}) {
		t.Errorf("the owner's refusal came as %v", err)
	}
}

func TestOwnerUnreachable(t *testing.T) {
	first, second, c, stop := pair(t)
	stop()
	v, err := c.VM(t.Context(), "web")
	if err != nil || v.Node != "a" || v.State != "unknown" {
		t.Errorf("a show when the peer's connection fails: %+v, %v", v, err)
	}
	if _, err := c.Act(t.Context(), "web", Stop, 0); codeOf(err).Code != Unreachable {
		t.Errorf("a stop when the peer's connection fails: %v", err)
	}
	first.route = func(string) (http.RoundTripper, error) { return nil, Errorf(Unreachable, "b is gone") }
	if v, err := c.VM(t.Context(), "web"); err != nil || v.Node != "a" {
		t.Errorf("a show when the peer is known to be gone: %+v, %v", v, err)
	}
	if _, err := c.Logs(t.Context(), "web", false); codeOf(err).Message != "b is gone" {
		t.Errorf("logs when the peer is known to be gone: %v", err)
	}
	if got := second.noted(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// roundTrip is a peer that answers in its own way.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// breaking is a body that breaks in the middle.
type breaking struct{ io.Reader }

func newBreaking(text string) io.ReadCloser {
	return breaking{io.MultiReader(strings.NewReader(text), roundTripError{})}
}

func (breaking) Close() error { return nil }

type roundTripError struct{}

func (roundTripError) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func answer(status int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: status, Body: body, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1}
}

func TestOwnerFailsInMidFlight(t *testing.T) {
	first, _, c, _ := pair(t)
	silent := func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
	for name, peer := range map[string]roundTrip{
		"cut": func(*http.Request) (*http.Response, error) { return answer(200, newBreaking(`{"name":"web","st`)), nil },
		"failing": func(*http.Request) (*http.Response, error) {
			return answer(502, io.NopCloser(strings.NewReader("x"))), nil
		},
		"silent": silent,
	} {
		first.route = func(string) (http.RoundTripper, error) { return peer, nil }
		v, err := c.VM(t.Context(), "web")
		if err != nil || v.Node != "a" {
			t.Errorf("%s: show gives %+v, %v", name, v, err)
		}
	}
	first.route = func(string) (http.RoundTripper, error) {
		return roundTrip(func(*http.Request) (*http.Response, error) { return answer(200, newBreaking(`{"name":`)), nil }), nil
	}
	if _, err := c.Act(t.Context(), "web", Stop, 0); codeOf(err).Code != Unreachable {
		t.Errorf("a stop whose answer is cut: %v", err)
	}

	// A peer that falls silent while it works is found gone.
	asked := 0
	first.route = func(string) (http.RoundTripper, error) {
		if asked++; asked > 1 {
			return nil, Errorf(Unreachable, "b was not heard")
		}
		return roundTrip(silent), nil
	}
	if _, err := c.Act(t.Context(), "web", Stop, 0); codeOf(err).Code != Unreachable || !strings.Contains(err.Error(), "b was not heard") {
		t.Errorf("a stop by a peer that falls silent: %v", err)
	}
}

// guestLine is a guest's serial line that answers every line it is sent.
func guestLine() (io.ReadWriteCloser, error) {
	here, guest := net.Pipe()
	go func() {
		defer guest.Close()
		// A line may come in pieces: what a server has read ahead comes first.
		for lines := bufio.NewScanner(guest); lines.Scan(); {
			if lines.Text() == "off" {
				return
			}
			if _, err := fmt.Fprintf(guest, "<%s>", lines.Text()); err != nil {
				return
			}
		}
	}()
	return here, nil
}

func TestConsole(t *testing.T) {
	first, second, elsewhere, _ := pair(t)
	second.console = guestLine
	first.console = guestLine
	direct := &fake{console: guestLine}
	for name, c := range map[string]*Client{"direct": clientOf(t, serve(t, direct)), "through a node": elsewhere} {
		line, err := c.Console(t.Context(), "web")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		buffer := make([]byte, 100)
		for _, word := range []string{"one", "two"} {
			if _, err := io.WriteString(line, word+"\n"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			n, err := io.ReadFull(line, buffer[:5])
			if err != nil || string(buffer[:n]) != "<"+word+">" {
				t.Fatalf("%s: %q, %v", name, buffer[:n], err)
			}
		}
		if _, err := io.WriteString(line, "off\n"); err != nil {
			t.Fatal(err)
		}
		if n, err := line.Read(buffer); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the guest's end gives %d, %v", name, n, err)
		}
		line.Close()
	}
	if got := strings.Join(append(first.noted(), second.noted()...), ";"); got != "console web" {
		t.Errorf("asked: %s", got)
	}
	second.err = Errorf(Conflict, "it is stopped")
	if _, err := elsewhere.Console(t.Context(), "web"); codeOf(err).Code != Conflict {
		t.Errorf("a console that is refused: %v", err)
	}
}

// A user who leaves frees the guest's line, and so does an agent that stops.
func TestConsoleEnds(t *testing.T) {
	here, guest := net.Pipe()
	f := &fake{console: func() (io.ReadWriteCloser, error) { return here, nil }}
	socket := filepath.Join(t.TempDir(), "s")
	stop := serveAt(t, f, socket)
	line, err := clientOf(t, socket).Console(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	line.Close()
	if _, err := guest.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the user left: %v", err)
	}
	here, guest = net.Pipe()
	if line, err = clientOf(t, socket).Console(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	stop()
	if _, err := guest.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the agent stopped: %v", err)
	}
	if _, err := line.Read(make([]byte, 1)); err == nil {
		t.Error("the user's end stays open")
	}
}

func TestEventsFollow(t *testing.T) {
	f := &fake{ended: make(chan struct{}), events: []Event{{Sequence: 1, Kind: "x", Time: exampleTime()}}}
	c := clientOf(t, serve(t, f))
	ctx, cancel := context.WithCancel(t.Context())
	var got []Event
	err := c.Events(ctx, EventFilter{Follow: true, VM: "w&b", Since: time.Unix(5, 0)}, func(e Event) error {
		got = append(got, e)
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(got) != 1 || got[0].Kind != "x" || !got[0].Time.Equal(exampleTime().Time) {
		t.Fatal(got, err)
	}
	<-f.ended // the server's side goes when its client goes
	if want := `events "w&b" true false`; f.noted()[0] != want {
		t.Errorf("%s, want %s", f.noted()[0], want)
	}
}

func TestEventsThatFail(t *testing.T) {
	f := &fake{ended: make(chan struct{}), events: []Event{{Sequence: 1}, {}}, failAt: 2, err: Errorf(Failed, "the log is damaged")}
	socket := filepath.Join(t.TempDir(), "s")
	stop := serveAt(t, f, socket)
	c := clientOf(t, socket)
	seen := 0
	err := c.Events(t.Context(), EventFilter{}, func(Event) error { seen++; return nil })
	if codeOf(err).Message != "the log is damaged" || seen != 1 {
		t.Errorf("an error behind %d events: %v", seen, err)
	}
	f.failAt = 0
	err = c.Events(t.Context(), EventFilter{Follow: true}, func(e Event) error {
		if e.Sequence == 0 {
			go stop()
		}
		return nil
	})
	if codeOf(err).Code != Unreachable {
		t.Errorf("an agent that stops under a follower: %v", err)
	}
}
