package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// enter goes into transmission on export "d".
func enter(t *testing.T, conn net.Conn) {
	t.Helper()
	client := &Client{conn: conn}
	if err := client.open("d"); err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, conn net.Conn, r request, payload []byte) {
	t.Helper()
	if _, err := conn.Write(append(r.append(nil), payload...)); err != nil {
		t.Fatal(err)
	}
}

func answerTo(t *testing.T, conn net.Conn, data int) (handle uint64, number uint32, body []byte) {
	t.Helper()
	raw := make([]byte, 16)
	if _, err := io.ReadFull(conn, raw); err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint32(raw) != magicSimple {
		t.Fatalf("reply magic %x", raw[:4])
	}
	body = make([]byte, data)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint64(raw[8:]), binary.BigEndian.Uint32(raw[4:]), body
}

func TestRequestsReachTheDevice(t *testing.T) {
	disk := &memory{bytes: make([]byte, 1<<20)}
	conn := session(t, serve(t, map[string]Export{"d": {Device: disk}}))
	enter(t, conn)
	data := pattern(5000, 1)
	ask(t, conn, request{kind: cmdWrite, flags: cmdFlagFUA, handle: 1, offset: 777, length: 5000}, data)
	if handle, number, _ := answerTo(t, conn, 0); handle != 1 || number != 0 {
		t.Fatalf("write: handle %d, error %d", handle, number)
	}
	if !disk.look(func() bool { return disk.flushes == 1 && bytes.Equal(disk.bytes[777:5777], data) }) {
		t.Fatal("a FUA write was not stored or not flushed")
	}
	ask(t, conn, request{kind: cmdRead, handle: 2, offset: 777, length: 5000}, nil)
	if _, number, got := answerTo(t, conn, 5000); number != 0 || !bytes.Equal(got, data) {
		t.Fatalf("read: error %d", number)
	}
	ask(t, conn, request{kind: cmdWriteZeroes, flags: cmdFlagNoHole | cmdFlagFastZero, handle: 3, offset: 778, length: 10}, nil)
	answerTo(t, conn, 0)
	if !disk.look(func() bool {
		return bytes.Equal(disk.bytes[778:788], make([]byte, 10)) && disk.bytes[777] == data[0] && disk.bytes[788] == data[11]
	}) {
		t.Fatal("zeroes landed elsewhere")
	}
	ask(t, conn, request{kind: cmdTrim, handle: 4, offset: 0, length: 4096}, nil)
	answerTo(t, conn, 0)
	ask(t, conn, request{kind: cmdFlush, handle: 5}, nil)
	answerTo(t, conn, 0)
	if !disk.look(func() bool { return disk.trims == 1 && disk.flushes == 2 }) {
		t.Fatal("TRIM or FLUSH did not arrive")
	}
}

func TestBadRequestsAreRefusedAndTheConnectionGoesOn(t *testing.T) {
	const size = 1 << 20
	disk := &memory{bytes: make([]byte, size)}
	path := serve(t, map[string]Export{"d": {Device: disk}})
	for _, c := range []struct {
		name    string
		r       request
		payload int
		want    syscall.Errno
	}{
		{"write across the end", request{kind: cmdWrite, offset: size - 1, length: 2}, 2, syscall.ENOSPC},
		{"write far out", request{kind: cmdWrite, offset: 1 << 63, length: 1}, 1, syscall.ENOSPC},
		{"read across the end", request{kind: cmdRead, offset: size - 1, length: 2}, 0, syscall.EINVAL},
		{"huge read", request{kind: cmdRead, length: MaxRequest + 1}, 0, syscall.EOVERFLOW},
		{"offset wraps", request{kind: cmdWriteZeroes, offset: ^uint64(0), length: 2}, 0, syscall.ENOSPC},
		{"trim across the end", request{kind: cmdTrim, offset: 1, length: size}, 0, syscall.EINVAL},
		{"unknown command", request{kind: 99}, 0, syscall.EINVAL},
		{"unknown flag", request{kind: cmdWrite, flags: 1 << 9, length: 1}, 1, syscall.EINVAL},
		{"flush with a range", request{kind: cmdFlush, length: 1}, 0, syscall.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := session(t, path)
			enter(t, conn)
			ask(t, conn, c.r, make([]byte, c.payload))
			if _, number, _ := answerTo(t, conn, 0); syscall.Errno(number) != c.want {
				t.Errorf("answer %v, want %v", syscall.Errno(number), c.want)
			}
			ask(t, conn, request{kind: cmdRead, handle: 9, length: 1}, nil)
			if handle, number, _ := answerTo(t, conn, 1); handle != 9 || number != 0 {
				t.Errorf("next request: handle %d, error %d", handle, number)
			}
		})
	}
}

func TestDeviceErrorsKeepTheirMeaning(t *testing.T) {
	for err, want := range map[error]syscall.Errno{
		syscall.ENOSPC:                           syscall.ENOSPC,
		fmt.Errorf("x: %w", syscall.EPERM):       syscall.EPERM,
		fmt.Errorf("x: %w", ErrNotSupported):     syscall.EOPNOTSUPP,
		errors.New("anything"):                   syscall.EIO,
		fmt.Errorf("odd one: %w", syscall.EXDEV): syscall.EIO,
	} {
		if got := syscall.Errno(errno(err)); got != want {
			t.Errorf("errno(%v) = %v, want %v", err, got, want)
		}
	}
}

func TestReadOnlyRefusesWrites(t *testing.T) {
	disk := &memory{bytes: make([]byte, 4096)}
	conn := session(t, serve(t, map[string]Export{"d": {Device: disk, ReadOnly: true}}))
	enter(t, conn)
	ask(t, conn, request{kind: cmdWrite, length: 3}, []byte("abc"))
	if _, number, _ := answerTo(t, conn, 0); syscall.Errno(number) != syscall.EPERM || !disk.look(func() bool { return disk.bytes[0] == 0 }) {
		t.Fatalf("answer %v, or it was written", syscall.Errno(number))
	}
}

func TestHangupGivesNoAnswer(t *testing.T) {
	disk := &memory{bytes: make([]byte, 4096), fail: ErrHangup}
	conn := session(t, serve(t, map[string]Export{"d": {Device: disk}}))
	enter(t, conn)
	ask(t, conn, request{kind: cmdWrite, length: 3}, []byte("abc"))
	if n, err := conn.Read(make([]byte, 16)); n != 0 || err == nil {
		t.Fatalf("read %d bytes, %v; want the end of the connection", n, err)
	}
}

// A write of an ended connection must land before the next connection's first.
func TestExclusiveWaitsForTheOneBefore(t *testing.T) {
	disk := &memory{bytes: make([]byte, 4096), gate: make(chan struct{}, 2)}
	path := serve(t, map[string]Export{"d": {Device: disk, Exclusive: true}})
	first := session(t, path)
	enter(t, first)
	ask(t, first, request{kind: cmdWrite, length: 3}, []byte("old"))
	waitFor(t, func() bool { return disk.look(func() bool { return disk.atGate == 1 }) })
	second := session(t, path)
	enter(t, second)
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Fatal("the first connection was answered")
	}
	ask(t, second, request{kind: cmdWrite, length: 3}, []byte("new"))
	// Time for a fault to show: the device notes one that comes until the first lands.
	if err := second.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) && !isTimeout(err) {
		t.Fatalf("the second connection was served beside the first: %v", err)
	}
	if err := second.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	disk.gate <- struct{}{}
	disk.gate <- struct{}{}
	answerTo(t, second, 0)
	if !disk.look(func() bool { return string(disk.bytes[:3]) == "new" && !disk.beside }) {
		t.Fatalf("disk has %q, the writes were at it beside each other: %t", disk.bytes[:3], disk.beside)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen")
		}
	}
}

func TestClientReadsBackFromOurServer(t *testing.T) {
	disk := &memory{bytes: pattern(3<<20+17, 5)}
	path := serve(t, map[string]Export{"d": {Device: disk}})
	client, err := Dial(context.Background(), path, "d")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if client.Size() != disk.Size() {
		t.Fatalf("size %d", client.Size())
	}
	got := make([]byte, len(disk.bytes))
	if _, err := client.ReadAt(got, 0); err != nil || !bytes.Equal(got, disk.bytes) {
		t.Fatalf("read: %v", err)
	}
	if _, err := client.ReadAt(got[:2], disk.Size()-1); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("read across the end: %v", err)
	}
	if _, err := client.Extents(0, 10); !errors.Is(err, ErrNotSupported) {
		t.Fatalf("extents of a server without them: %v", err)
	}
	if _, err := Dial(context.Background(), path, "other"); !errors.Is(err, ErrNoExport) {
		t.Fatalf("unknown export: %v", err)
	}
}
