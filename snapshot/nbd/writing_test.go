package nbd

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"
)

// piece is a part of a write that a starting device was given.
type piece struct {
	off  int64
	data []byte
	done func(error)
}

// starting is a device whose writes end when a test says so.
type starting struct {
	*memory
	begun chan piece
}

func newStarting(size int) *starting {
	return &starting{&memory{bytes: make([]byte, size)}, make(chan piece, 16)}
}

func (s *starting) StartWrite(p []byte, off int64, done func(error)) { s.begun <- piece{off, p, done} }

func (s *starting) next(t *testing.T) piece {
	t.Helper()
	select {
	case p := <-s.begun:
		return p
	case <-time.After(5 * time.Second):
		t.Fatal("the device was given nothing")
		return piece{}
	}
}

func TestLongWriteIsHandedOnWhileItIsRead(t *testing.T) {
	const size = 2*pieceSize + 100
	for name, c := range map[string]struct {
		fail error // of the second piece
		want syscall.Errno
	}{"good": {}, "failed": {syscall.ENOSPC, syscall.ENOSPC}} {
		t.Run(name, func(t *testing.T) {
			disk := newStarting(1 << 20)
			conn := session(t, serve(t, map[string]Export{"d": {Device: disk}}))
			enter(t, conn)
			data := pattern(size, 3)
			ask(t, conn, request{kind: cmdWrite, handle: 7, offset: 512, length: size}, data[:pieceSize])
			pieces := []piece{disk.next(t)} // though the rest is not there yet
			if _, err := conn.Write(data[pieceSize:]); err != nil {
				t.Fatal(err)
			}
			pieces = append(pieces, disk.next(t), disk.next(t))
			var got []byte
			for _, p := range pieces {
				if p.off != 512+int64(len(got)) {
					t.Errorf("a piece at %d, want %d", p.off, 512+len(got))
				}
				got = append(got, p.data...)
			}
			if !bytes.Equal(got, data) {
				t.Error("the pieces are not what was written")
			}
			pieces[1].done(c.fail)
			pieces[2].done(nil)
			if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
				t.Fatalf("answered before its last piece was stored: %v", err)
			}
			if err := conn.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			pieces[0].done(nil)
			if handle, number, _ := answerTo(t, conn, 0); handle != 7 || syscall.Errno(number) != c.want {
				t.Errorf("handle %d, error %v, want %v", handle, syscall.Errno(number), c.want)
			}
		})
	}
}

func TestHangupOfAPieceGivesNoAnswer(t *testing.T) {
	disk := newStarting(1 << 20)
	conn := session(t, serve(t, map[string]Export{"d": {Device: disk}}))
	enter(t, conn)
	ask(t, conn, request{kind: cmdWrite, length: 3}, []byte("abc"))
	disk.next(t).done(ErrHangup)
	if n, err := conn.Read(make([]byte, 16)); n != 0 || err == nil {
		t.Fatalf("read %d bytes, %v; want the end of the connection", n, err)
	}
}

// Of a write that is cut off a part may be under way: nothing of the next
// connection lands before it has.
func TestExclusiveWaitsForAPieceOfTheOneBefore(t *testing.T) {
	disk := newStarting(1 << 20)
	path := serve(t, map[string]Export{"d": {Device: disk, Exclusive: true}})
	first := session(t, path)
	enter(t, first)
	ask(t, first, request{kind: cmdWrite, length: 2 * pieceSize}, make([]byte, pieceSize+1))
	cut := disk.next(t)
	first.Close()
	second := session(t, path)
	enter(t, second)
	ask(t, second, request{kind: cmdWrite, handle: 2, length: 3}, []byte("new"))
	select {
	case <-disk.begun:
		t.Fatal("a write of the second connection began before the first one's had ended")
	case <-time.After(50 * time.Millisecond):
	}
	cut.done(errors.New("whatever"))
	disk.next(t).done(nil)
	if handle, number, _ := answerTo(t, second, 0); handle != 2 || number != 0 {
		t.Errorf("handle %d, error %d", handle, number)
	}
}

// What is not a plain write inside of the export goes the way of all requests.
func TestOnlyPlainWritesAreHandedOn(t *testing.T) {
	disk := newStarting(4096)
	path := serve(t, map[string]Export{"d": {Device: disk}, "r": {Device: disk, ReadOnly: true}})
	conn := session(t, path)
	enter(t, conn)
	ask(t, conn, request{kind: cmdWrite, flags: cmdFlagFUA, length: 3}, []byte("abc"))
	if _, number, _ := answerTo(t, conn, 0); number != 0 || !disk.look(func() bool { return disk.flushes == 1 && string(disk.bytes[:3]) == "abc" }) {
		t.Errorf("a FUA write: error %d, or not stored and flushed", number)
	}
	ask(t, conn, request{kind: cmdWrite, offset: 4095, length: 3}, []byte("abc"))
	if _, number, _ := answerTo(t, conn, 0); syscall.Errno(number) != syscall.ENOSPC {
		t.Errorf("a write across the end: error %d", number)
	}
	readOnly := session(t, path)
	client := &Client{conn: readOnly}
	if err := client.open("r"); err != nil {
		t.Fatal(err)
	}
	ask(t, readOnly, request{kind: cmdWrite, length: 3}, []byte("xyz"))
	if _, number, _ := answerTo(t, readOnly, 0); syscall.Errno(number) != syscall.EPERM {
		t.Errorf("a write to a read-only export: error %d", number)
	}
	if len(disk.begun) != 0 {
		t.Error("a refused write reached the device")
	}
}
