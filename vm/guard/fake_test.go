package guard

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// board is a page shared with another process of the test: it shows what that
// process did up to the last moment, also when it was stopped or killed.
type board struct {
	Paused, Hang, Conts, Stops atomic.Int64
	LateStop                   atomic.Int64 // a `stop` is carried out right after the next `cont`
	Status                     atomic.Int64 // index into runStates
	Deadline                   atomic.Int64 // of an agent: last one that was granted
	Last, Count                [8]atomic.Int64
}

var runStates = []string{"running", "paused", "io-error", "postmigrate"}

func openBoard(path string) (*board, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*board)(unsafe.Pointer(&mem[0])), nil
}

func (b *board) lastTick() (last int64) {
	for i := range b.Last {
		last = max(last, b.Last[i].Load())
	}
	return last
}

func (b *board) ticks() (sum int64) {
	for i := range b.Count {
		sum += b.Count[i].Load()
	}
	return sum
}

// fakeQEMU ticks on several threads and answers a little QMP.
func fakeQEMU() error {
	b, err := openBoard(os.Getenv("FAKE_BOARD"))
	if err != nil {
		return err
	}
	fmt.Println("fake QEMU starts")
	if os.Getenv("FAKE_EXIT") != "" {
		fmt.Fprintln(os.Stderr, "fake QEMU: cannot open disk")
		os.Exit(3)
	}
	if os.Getenv("FAKE_DEAF") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	runtime.GOMAXPROCS(len(b.Last) + 2)
	gap, _ := strconv.Atoi(os.Getenv("FAKE_GAP_US"))
	for i := range b.Last {
		go func() {
			runtime.LockOSThread()
			for {
				if b.Paused.Load() == 0 {
					b.Last[i].Store(Now())
					b.Count[i].Add(1)
				}
				if gap > 0 {
					ts := unix.NsecToTimespec(int64(gap) * 1000)
					_ = unix.Nanosleep(&ts, nil)
				}
			}
		}()
	}
	l, err := net.Listen("unix", os.Getenv("FAKE_QMP"))
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go fakeMonitor(conn, b)
	}
}

func fakeMonitor(conn net.Conn, b *board) {
	defer conn.Close()
	fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": ["oob"]}}`)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		for b.Hang.Load() != 0 {
			time.Sleep(time.Millisecond)
		}
		var c struct{ Execute string }
		_ = json.Unmarshal(lines.Bytes(), &c)
		result := "{}"
		switch c.Execute {
		case "query-status":
			state := runStates[b.Status.Load()]
			if b.Paused.Load() == 0 && state != "io-error" {
				state = "running"
			}
			result = fmt.Sprintf(`{"status": %q}`, state)
		case "stop":
			b.Stops.Add(1)
			b.Status.Store(1)
			b.Paused.Store(1)
			fmt.Fprintln(conn, `{"event": "STOP", "timestamp": {}}`)
		case "cont":
			b.Conts.Add(1)
			b.Status.Store(0)
			b.Paused.Store(0)
			fmt.Fprintln(conn, `{"event": "RESUME", "timestamp": {}}`)
			if b.LateStop.Swap(0) != 0 {
				b.Status.Store(1)
				b.Paused.Store(1)
			}
		}
		fmt.Fprintf(conn, `{"return": %s}`+"\n", result)
	}
}

// stopGuest pauses the guest through QMP, as the agent does on its own socket.
func stopGuest(t testing.TB, socket string) {
	t.Helper()
	m, err := dialMonitor(t.Context(), socket)
	for end := time.Now().Add(5 * time.Second); errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // bound, but not listening yet
		m, err = dialMonitor(t.Context(), socket)
	}
	if err == nil {
		err = m.execute("stop", time.Second, nil)
		m.close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
