package witness

import (
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/ha"
	"vmctl/node/lease"
	"vmctl/node/peer"
)

// porters are the child processes of this one that make handshakes.
func porters(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		data, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue // a thread that ended
		}
		for _, text := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			if line, err := os.ReadFile("/proc/" + text + "/cmdline"); err == nil && strings.HasPrefix(string(line), "porter") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// until polls for what another process does.
func until(t *testing.T, what string, within time.Duration, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > within {
			t.Fatalf("%s: not within %s", what, within)
		}
	}
}

// knock has a stranger stand in the door, so that there is a porter.
func knock(t *testing.T, addr string) (conn net.Conn, pid int) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	until(t, "a porter", 5*time.Second, func() bool { return len(porters(t)) == 1 })
	return conn, porters(t)[0]
}

// reaches dials until there is an answer: a node does so for good.
func reaches(t *testing.T, id *peer.Identity, addr, dir string, within time.Duration) *voter {
	t.Helper()
	for began := time.Now(); ; {
		conn, err := id.Dial(t.Context(), remote(t, addr, dir), lease.Purpose, "", lease.Options())
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return &voter{id: id, conn: conn, seq: uint64(time.Now().UnixNano()), in: lease.NewDecoder(witnessID(t, dir))}
		}
		if time.Since(began) > within {
			t.Fatalf("no connection within %s: %v", within, err)
		}
	}
}

// A porter that dies or hangs costs the handshakes under way. The links go on,
// nothing of it stays, and the next one lets nodes in.
func TestPorterThatEndsBadly(t *testing.T) {
	for name, do := range map[string]func(pid int) error{
		"killed":  func(pid int) error { return unix.Kill(pid, unix.SIGKILL) },
		"stopped": func(pid int) error { return unix.Kill(pid, unix.SIGSTOP) },
		"asked":   func(pid int) error { return unix.Kill(pid, unix.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			addr, stop := start(t, dir)
			shop := found(t, "shop", "a")
			if err := enrol(shop, addr, readToken(t, dir)); err != nil {
				t.Fatal(err)
			}
			owner := dial(t, shop, addr, dir)
			record := ha.Record{Guest: "g", Epoch: 1, Owner: "a"}
			owner.heartbeat(t, record)
			quiet := speak(owner)
			stranger, pid := knock(t, addr)
			if err := do(pid); err != nil {
				t.Fatal(err)
			}
			second := reaches(t, second(t, shop, "b"), addr, dir, 25*time.Second)
			second.ask(t, ha.Ask{Guest: "g", Epoch: 2})
			if err := quiet(); err != nil {
				t.Errorf("the link of before: %v", err)
			}
			_ = stranger.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := stranger.Read(make([]byte, 1)); os.IsTimeout(err) {
				t.Error("a handshake of the dead porter goes on")
			}
			if now := porters(t); slices.Contains(now, pid) || len(now) > 1 {
				t.Errorf("after porter %d there are %v", pid, now)
			}
			stop()
			if left := porters(t); len(left) > 0 {
				t.Errorf("porters %v outlive the witness", left)
			}
		})
	}
}

// The porter is there while somebody comes, and its sockets and memory go with
// it. Its end costs nobody anything.
func TestPorterGoesWhenItIsCalm(t *testing.T) {
	dir := t.TempDir()
	addr, _ := start(t, dir)
	if n := len(porters(t)); n != 0 {
		t.Errorf("%d porters before anybody came", n)
	}
	shop := found(t, "shop", "a")
	if err := enrol(shop, addr, readToken(t, dir)); err != nil {
		t.Fatal(err)
	}
	owner := dial(t, shop, addr, dir)
	record := ha.Record{Guest: "g", Epoch: 1, Owner: "a"}
	owner.heartbeat(t, record)
	if n := len(porters(t)); n > 1 {
		t.Errorf("%d porters", n)
	}
	quiet := speak(owner)
	until(t, "the porter's end", 20*time.Second, func() bool { return len(porters(t)) == 0 })
	if err := quiet(); err != nil {
		t.Error(err)
	}
	owner.heartbeat(t, record)
	dial(t, second(t, shop, "b"), addr, dir).ask(t, ha.Ask{Guest: "g", Epoch: 2})
}
