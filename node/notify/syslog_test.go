package notify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive(t *testing.T, conn net.Conn) string {
	t.Helper()
	buffer := make([]byte, 64<<10)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

const want5424 = `^<25>1 2023-11-14T22:13:20\.123Z a vmctl \d+ peer-lost \[vmctl@32473 id="run-1" kind="peer-lost" severity="alarm" vm="web" ` +
	`node="a" time="2023-11-14T22:13:20\.123Z" state="on" repeated="2" dropped="0"\] ` + "\ufeff" + `web: no word for 3 s \(and 2 times more\)$`

func TestDevLog(t *testing.T) {
	dir := t.TempDir()
	s := &syslog{journal: filepath.Join(dir, "journal"), devlog: filepath.Join(dir, "log"), timeout: 5 * time.Second}
	if err := s.send(t.Context(), sample); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody listens: %v", err)
	}
	conn := listen(t, s.devlog)
	// What is left of a journald that ended does not stop /dev/log.
	listen(t, s.journal).Close()
	for range 2 {
		if err := s.send(t.Context(), sample); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, conn); !regexp.MustCompile(want5424).MatchString(got) {
			t.Errorf("got %q", got)
		}
		// The daemon is restarted.
		conn.Close()
		_ = os.Remove(s.devlog)
		conn = listen(t, s.devlog)
	}
}

func TestDevLogStream(t *testing.T) {
	dir := t.TempDir()
	s := &syslog{journal: filepath.Join(dir, "journal"), devlog: filepath.Join(dir, "log"), timeout: 5 * time.Second}
	listener, err := net.Listen("unix", s.devlog)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := s.send(t.Context(), sample); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, ended := strings.CutSuffix(receive(t, conn), "\n"); !ended || !regexp.MustCompile(want5424).MatchString(got) {
		t.Errorf("got %q", got)
	}
}

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	s := &syslog{journal: filepath.Join(dir, "journal"), devlog: filepath.Join(dir, "log"), timeout: 5 * time.Second}
	conn := listen(t, s.journal)
	if err := s.send(t.Context(), sample); err != nil {
		t.Fatal(err)
	}
	got := receive(t, conn)
	message := "web: no word\nfor 3 s (and 2 times more)"
	length := string(binary.LittleEndian.AppendUint64(nil, uint64(len(message))))
	want := "MESSAGE\n" + length + message + "\nPRIORITY=1\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=vmctl\nVMCTL_ID=run-1\nVMCTL_KIND=peer-lost\n" +
		"VMCTL_SEVERITY=alarm\nVMCTL_VM=web\nVMCTL_NODE=a\nVMCTL_TIME=2023-11-14T22:13:20.123Z\nVMCTL_STATE=on\nVMCTL_REPEATED=2\nVMCTL_DROPPED=0\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	// The longest there is fits into a datagram.
	long := strings.Repeat("x\n", mostMessage)
	if err := s.send(t.Context(), newDelivery("1", Event{Message: long}.tidy(), 0)); err != nil {
		t.Error(err)
	}
}

// TestStuckLog: a daemon that does not read holds nobody beyond the timeout or ctx.
func TestStuckLog(t *testing.T) {
	dir := t.TempDir()
	s := &syslog{journal: filepath.Join(dir, "journal"), devlog: filepath.Join(dir, "log"), timeout: 200 * time.Millisecond}
	listen(t, s.devlog)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for i := 0; err == nil && i < 10000; i++ { // until it takes no more
		err = unix.Sendto(fd, []byte("x"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: s.devlog})
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.send(t.Context(), sample); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("timeout: %v after %v", err, time.Since(began))
	}
	s.timeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began = time.Now()
	if err := s.send(ctx, sample); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("ctx: %v after %v", err, time.Since(began))
	}
}

func TestSeverity(t *testing.T) {
	for _, test := range []struct {
		severity string
		state    State
		want     int
	}{{Alarm, On, 1}, {Alarm, Plain, 1}, {Info, Off, 5}, {Alarm, Off, 5}, {Warning, Plain, 4}, {Info, Plain, 6}, {"", Plain, 6}} {
		if got := severity(Delivery{Severity: test.severity, State: test.state}); got != test.want {
			t.Errorf("%s %s: %d, want %d", test.severity, test.state, got, test.want)
		}
	}
}

// FuzzSyslog: no event can write a field or a structure of its own.
func FuzzSyslog(f *testing.F) {
	f.Add("kind", "vm", "a message")
	f.Add("k]\"\\", "v\n", "x\nPRIORITY=0\n")
	f.Add("ü \x00", "=", "] [a b=\"c\"]")
	f.Fuzz(func(t *testing.T, kind, vm, message string) {
		d := newDelivery("1", Event{Kind: kind, VM: vm, Message: message, Severity: Info}.tidy(), 0)
		got := rfc5424(d, 1)
		if bytes.ContainsAny(got, "\n\x00") {
			t.Errorf("%q has line ends", got)
		}
		_, rest, _ := strings.Cut(string(got), " [vmctl@32473")
		inside := regexp.MustCompile(`^( [a-z]+="([^"\\\]]|\\["\\\]])*")*\] ` + "\ufeff").FindString(rest)
		if inside == "" || strings.Count(strings.SplitN(string(got), " [", 2)[0], " ") != 5 {
			t.Errorf("%q is not RFC 5424", got)
		}
		fields := map[string]string{}
		for entry := journalEntry(d); len(entry) > 0; {
			end := bytes.IndexByte(entry, '\n')
			name, value, simple := strings.Cut(string(entry[:end]), "=")
			entry = entry[end+1:]
			if !simple {
				length := binary.LittleEndian.Uint64(entry)
				value, entry = string(entry[8:8+length]), entry[8+length+1:]
			}
			if _, twice := fields[name]; twice {
				t.Fatalf("%s is there twice", name)
			}
			fields[name] = value
		}
		if fields["MESSAGE"] != line(d) || fields["PRIORITY"] != "6" || fields["VMCTL_VM"] != d.VM {
			t.Errorf("fields %q", fields)
		}
	})
}
