package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Ear is a webhook on the switch that notes what the hosts tell it.
type Ear struct {
	server *http.Server
	done   chan struct{}

	mu    sync.Mutex
	since time.Time // what happened earlier is not noted
	heard []string
}

// earPort is where the webhook listens.
const earPort = 9001

// Hear makes the hosts tell their events to an ear, from the next start of
// their agents on.
func (l *Lab) Hear() (*Ear, error) {
	e := &Ear{done: make(chan struct{})}
	e.server = &http.Server{Handler: http.HandlerFunc(e.take), ReadHeaderTimeout: 10 * time.Second}
	var listener net.Listener
	err := l.inSwitch(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf("%s:%d", SwitchAddr, earPort))
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() { defer close(e.done); _ = e.server.Serve(listener) }()
	if err := l.Configure(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Configure gives both nodes the config with which they tell the ear, from the next
// start of their agents on.
func (l *Lab) Configure() error {
	text := fmt.Sprintf("notify: [{webhook: 'http://%s:%d/'}]\n", SwitchAddr, earPort)
	return errors.Join(l.A.Configure(text), l.B.Configure(text))
}

// take notes one delivery as "node kind state".
func (e *Ear) take(w http.ResponseWriter, r *http.Request) {
	var d struct {
		Node, Kind, State string
		Time              time.Time
	}
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.Time.Before(e.since) {
		return
	}
	e.heard = append(e.heard, d.Node+" "+d.Kind+" "+d.State)
}

// Heard counts how often a host told one end of an alarm: state is on or off.
func (e *Ear) Heard(h *Host, kind, state string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, line := range e.heard {
		if line == h.Name+" "+kind+" "+state {
			n++
		}
	}
	return n
}

// Open are the alarms, as "node kind", of which nothing was told since they began.
func (e *Ear) Open() (open []string) {
	on := map[string]bool{}
	for _, line := range e.All() {
		if alarm, yes := strings.CutSuffix(line, " on"); yes {
			on[alarm] = true
		} else if alarm, yes := strings.CutSuffix(line, " off"); yes {
			delete(on, alarm)
		}
	}
	return slices.Sorted(maps.Keys(on))
}

// Forget forgets what was told of so far, and what will be told that has happened
// before: a repeated event is told late.
func (e *Ear) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.since, e.heard = time.Now(), nil
}

// All is everything that was told, in order.
func (e *Ear) All() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}

// Close ends the webhook.
func (e *Ear) Close() {
	_ = e.server.Close()
	<-e.done
}
