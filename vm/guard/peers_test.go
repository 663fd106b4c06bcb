package guard

import (
	"bytes"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func rawConn(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Whatever a client does, the others are served and the lease is kept.
func TestBrokenClientsDoNoHarm(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	for _, packet := range []string{"", "x", "1 1 renew 7", "1 0 status", "1 1 status ", strings.Repeat("9", 3000)} {
		conn := rawConn(t, b.launch.Socket)
		_, _ = conn.Write([]byte(packet))
	}
	future := rawConn(t, b.launch.Socket)
	_, _ = future.Write([]byte("2 5 status"))
	var buf [100]byte
	if n, err := future.Read(buf[:]); err != nil || string(buf[:n]) != "1 5 error version" {
		t.Errorf("answer to a later version: %q, %v", buf[:n], err)
	}
	deaf := rawConn(t, b.launch.Socket) // never reads its answers
	_ = deaf.SetWriteDeadline(time.Now().Add(5 * time.Second))
	for range 5000 {
		if _, err := deaf.Write([]byte("1 1 status")); err != nil {
			break // dropped, as it should be
		}
	}
	for range 2 * maxPeers { // too many
		if conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: b.launch.Socket, Net: "unixpacket"}); err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
	b.renew(soon(50 * time.Millisecond))
	b.untilStopped()
	b.mustBeStill()
	b.renew(Forever)
	b.untilTicks()
}

func TestManyClientsAtOnce(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	var all sync.WaitGroup
	for range 8 {
		c := b.attach()
		for range 3 {
			all.Go(func() {
				for range 50 {
					deadline := soon(time.Minute)
					if err := c.Renew(t.Context(), 7, deadline); err != nil {
						t.Error(err)
						return
					}
					if s, err := c.Status(t.Context()); err != nil || s.Deadline < deadline {
						t.Errorf("deadline %d after it was set to %d: %v", s.Deadline, deadline, err)
						return
					}
				}
			})
		}
	}
	all.Wait()
}

// The collector is off in a guard: what a message allocates is lost for good.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	side, err := newSide(nil)
	if err != nil {
		t.Fatal(err)
	}
	l := Launch{Epoch: 7, DeadlineNS: soon(time.Hour), Guest: Guest{UUID: "u"}, QMPSocket: "/q"}
	p, err := openPeers(t.TempDir() + "/s")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	g, err := newLoop(&l, p, side)
	if err != nil {
		t.Fatal(err)
	}
	g.child = &child{pid: os.Getpid(), pidfd: -1, tasks: -1}
	g.peers.slots[0] = peer{fd: pair[0], serial: 1}
	buf := make([]byte, maxMessage)
	send := func(r request) {
		if _, err := unix.Write(pair[1], appendRequest(buf[:0], r)); err != nil {
			t.Fatal(err)
		}
		g.enforce(Now())
		g.receive(&g.peers.slots[0], unix.EPOLLIN)
		g.endings(Now())
		n, err := unix.Read(pair[1], buf)
		if err != nil || !bytes.Contains(buf[:n], []byte(" ok")) {
			t.Fatalf("answer %q, %v", buf[:n], err)
		}
	}
	var id uint64
	allocs := testing.AllocsPerRun(200, func() {
		id++
		send(request{tag: id, verb: verbRenew, args: [2]uint64{7, uint64(soon(2 * time.Hour))}})
		send(request{tag: id, verb: verbPauseBegin, args: [2]uint64{id, 1e9}})
		send(request{tag: id, verb: verbPauseEnd, args: [2]uint64{id}})
		send(request{tag: id, verb: verbStatus})
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a renewal, a pause and a status", allocs)
	}
}

// What a guard costs; no limit is asserted, the binary around it varies.
func TestFootprint(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	for range 200 {
		b.renew(soon(time.Hour))
	}
	s := b.status()
	status, err := os.ReadFile("/proc/" + itoa(s.GuardPID) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^(VmRSS|VmLck|RssAnon|Threads):.*$`).FindAllString(string(status), -1)
	t.Logf("guard: memory locked %v, real time %v; %s", s.MemoryLocked, s.RealTime, strings.Join(lines, "; "))
	if os.Geteuid() == 0 && (!s.MemoryLocked || !s.RealTime) {
		t.Errorf("root was not granted what the guard asks for: %+v", s)
	}
}
