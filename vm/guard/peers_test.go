package guard

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
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
	b.lapse(200 * time.Millisecond)
	b.untilStopped()
	b.mustBeStill()
	b.renew(Forever)
	b.untilTicks()
}

// overdue has a deadline that is over for the socket before the context has ended.
type overdue struct{ context.Context }

func (overdue) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// A call whose time is up when it is sent has run out of time: it is not told as the
// end of the connection, which goes on.
func TestLateCallIsNoDetachment(t *testing.T) {
	t.Parallel()
	b := startBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.client.Status(overdue{ctx}); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrDetached) {
		t.Errorf("sent too late: %v", err)
	}
	if _, err := b.client.Status(t.Context()); err != nil {
		t.Errorf("after it: %v", err)
	}
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

// loopForTest is a loop without a process, and a client of it in this one.
func loopForTest(t *testing.T, l *Launch) (*loop, func(packet string) string) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	side, err := newSide(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPeers(t.TempDir() + "/s")
	if err != nil {
		t.Fatal(err)
	}
	g, err := newLoop(l, p, side)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.close(); p.close(); _ = unix.Close(side.event); _ = unix.Close(pair[1]) })
	p.slots[0] = peer{fd: pair[0], serial: 1}
	buf := make([]byte, maxMessage)
	return g, func(packet string) string {
		if _, err := unix.Write(pair[1], []byte(packet)); err != nil {
			t.Fatal(err)
		}
		g.receive(&p.slots[0], unix.EPOLLIN)
		n, err := unix.Read(pair[1], buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// The collector is off in a guard: what a message allocates is lost for good.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	l := Launch{Epoch: 7, DeadlineNS: soon(time.Hour), Guest: Guest{UUID: "u"}, QMPSocket: "/q"}
	g, send := loopForTest(t, &l)
	g.child = &child{pid: os.Getpid(), pidfd: -1, tasks: -1}
	work := []request{
		{tag: 1, verb: verbRenew, args: [2]uint64{7, uint64(soon(2 * time.Hour))}},
		{tag: 2, verb: verbPauseBegin, args: [2]uint64{1, 1e9}},
		{tag: 3, verb: verbPauseEnd, args: [2]uint64{1}},
		{tag: 4, verb: verbStatus},
	}
	for _, r := range work {
		if got := send(string(appendRequest(nil, r))); !strings.Contains(got, " ok") {
			t.Fatal(got)
		}
	}
	p := &g.peers.slots[0]
	allocs := testing.AllocsPerRun(200, func() {
		work[1].args[0]++
		work[2].args[0]++
		for i := range work {
			r, err := decodeRequest(appendRequest(g.in[:0], work[i]))
			if err != nil {
				t.Error(err)
			}
			g.enforce(Now())
			out, err := g.answer(appendOK(g.out[:0], r.tag), p, &r)
			if err != nil || len(out) == 0 {
				t.Error(err)
			}
			g.endings(Now())
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a renewal, a pause and a status", allocs)
	}
}
