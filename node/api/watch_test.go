package api

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// An agent that is stopped takes connections and answers none; one that works
// for long answers others meanwhile.
func TestStuckAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := clientOf(t, socket)
	c.ping = 20 * time.Millisecond
	if _, err := c.VMs(t.Context()); codeOf(err).Code != Unreachable {
		t.Errorf("a stopped agent: %v", err)
	}
	if _, err := c.Create(t.Context(), []byte("{}")); codeOf(err).Code != Unreachable {
		t.Errorf("a stopped agent: %v", err)
	}

	f := &fake{block: make(chan struct{})}
	c = clientOf(t, serve(t, f))
	c.ping = 200 * time.Millisecond
	time.AfterFunc(5*c.ping, func() { close(f.block) })
	if _, err := c.Act(t.Context(), "web", Stop, 0); err != nil {
		t.Errorf("an agent that takes its time: %v", err)
	}
}
