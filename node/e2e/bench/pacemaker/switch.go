package pacemaker

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"vmctl/node/e2e/lab"
)

// Off is one order of a fence agent to cut a host's power.
type Off struct {
	Host            string
	Asked, Answered time.Time
	WasOn           bool // the host ran: pacemaker took a live one for dead
}

// powerSwitch is the hosts' power, and the network service that fence agents
// ask. Orders and the bench's own cuts are taken one after the other.
type powerSwitch struct {
	listener net.Listener
	hosts    map[string]*lab.Host
	tasks    sync.WaitGroup

	mu   sync.Mutex
	on   map[string]bool
	offs []Off
}

func (p *Pair) startSwitch() error {
	s := &powerSwitch{hosts: map[string]*lab.Host{"a": p.A, "b": p.B}, on: map[string]bool{}}
	err := lab.InNamespace(p.SwitchNS(), func() (err error) {
		s.listener, err = net.Listen("tcp", net.JoinHostPort(lab.SwitchAddr, "0"))
		return err
	})
	if err != nil {
		return fmt.Errorf("start the power switch: %w", err)
	}
	s.tasks.Go(s.serve)
	p.power = s
	return nil
}

func (s *powerSwitch) close() error {
	err := s.listener.Close()
	s.tasks.Wait()
	return err
}

func (s *powerSwitch) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.tasks.Go(func() { s.answer(conn) })
	}
}

func (s *powerSwitch) answer(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 2 || s.hosts[words[1]] == nil {
		return
	}
	state := s.order(words[0], words[1], time.Now())
	_, _ = fmt.Fprintln(conn, state)
}

// order carries one order out and says what the host's power is then.
func (s *powerSwitch) order(action, host string, asked time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if action == "off" {
		off := Off{Host: host, Asked: asked, WasOn: s.on[host]}
		if off.WasOn {
			if err := s.hosts[host].PowerCut(context.Background()); err != nil {
				return "failed"
			}
			s.on[host] = false
		}
		off.Answered = time.Now()
		s.offs = append(s.offs, off)
	}
	if s.on[host] {
		return "on"
	}
	return "off"
}

// set changes a host's power by act.
func (s *powerSwitch) set(host string, on bool, act func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := act()
	if err == nil {
		s.on[host] = on
	}
	return err
}

// orders are those to cut a host's power after a time.
func (s *powerSwitch) orders(after time.Time) (list []Off) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, off := range s.offs {
		if off.Asked.After(after) {
			list = append(list, off)
		}
	}
	return list
}
