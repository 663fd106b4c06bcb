package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"vmctl/packaging/testguest/work"
)

// state is the newest status, for those who ask.
type state struct {
	started time.Time
	power   power
	mu      sync.Mutex
	status  work.Status
}

func (s *state) set(status work.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *state) get() work.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Clock, status.Uptime = time.Now(), time.Since(s.started).Seconds()
	status.Sizes = diskSizes()
	return status
}

// serveHTTP answers on port 80; some paths do something to the guest.
func (s *state) serveHTTP() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.get())
	})
	mux.HandleFunc("/grow", func(w http.ResponseWriter, _ *http.Request) {
		size, err := growData()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(size)
	})
	for path, act := range map[string]func(){"/panic": panicKernel, "/poweroff": s.power.off, "/reboot": s.power.reboot} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "yes")
			time.AfterFunc(100*time.Millisecond, act)
		})
	}
	fmt.Println("workload: HTTP ended:", http.ListenAndServe(":80", mux))
}

// serveUDP answers each datagram to port 7.
func (s *state) serveUDP() {
	conn, err := net.ListenPacket("udp", ":7")
	if err != nil {
		fmt.Println("workload: UDP:", err)
		return
	}
	buffer := make([]byte, 64)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			continue
		}
		if data, err := json.Marshal(s.get()); err == nil {
			_, _ = conn.WriteTo(data, from)
		}
	}
}

// sender tells a recorder of each step.
type sender struct{ conn net.Conn }

func dial(addr string) sender {
	if addr == "" {
		return sender{}
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		fmt.Println("workload: no recorder:", err)
	}
	return sender{conn}
}

func (s sender) send(status work.Status) {
	if s.conn == nil {
		return
	}
	datagram := work.Datagram{Token: status.Token, Counter: status.Counter, Chain: status.Chain, Broken: status.Broken, Clock: time.Now().UnixNano()}
	if data, err := json.Marshal(datagram); err == nil {
		_, _ = s.conn.Write(data) // nobody may be listening
	}
}
