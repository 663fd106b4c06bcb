package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// load is one way of writing.
type load struct {
	name   string
	size   int // bytes of a write
	depth  int // writes under way at once
	random bool
}

// Loads of both parts.
var (
	random1    = load{"4 KiB random, depth 1", 4 << 10, 1, true}
	random16   = load{"4 KiB random, depth 16", 4 << 10, 16, true}
	sequential = load{"1 MiB sequential, depth 1", 1 << 20, 1, false}
	deep       = load{"1 MiB sequential, depth 4", 1 << 20, 4, false}
)

// writer is an NBD client that writes. The product's own only reads.
type writer struct {
	conn net.Conn
	size int64
}

// dialWriter enters transmission on an export by the old, short handshake.
func dialWriter(socket, export string) (_ *writer, err error) {
	w := &writer{}
	if w.conn, err = net.Dial("unix", socket); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.conn.Close())
		}
	}()
	if _, err := io.ReadFull(w.conn, make([]byte, 18)); err != nil {
		return nil, err
	}
	hello := append([]byte{0, 0, 0, 3}, "IHAVEOPT"...) // fixed newstyle, no zeroes
	hello = binary.BigEndian.AppendUint32(hello, 1)    // NBD_OPT_EXPORT_NAME
	hello = binary.BigEndian.AppendUint32(hello, uint32(len(export)))
	if _, err := w.conn.Write(append(hello, export...)); err != nil {
		return nil, err
	}
	var about [10]byte
	if _, err := io.ReadFull(w.conn, about[:]); err != nil {
		return nil, fmt.Errorf("enter export %s: %w", export, err)
	}
	w.size = int64(binary.BigEndian.Uint64(about[:]))
	return w, nil
}

func (w *writer) close() error { return w.conn.Close() }

// write writes for so long with l.depth requests under way, and says how long
// each took.
func (w *writer) write(ctx context.Context, l load, turn time.Duration) (result, error) {
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	raw := make([]byte, 28+l.size)
	for i := 28; i < 28+l.size; i += 8 {
		raw = binary.LittleEndian.AppendUint64(raw[:i], rand.Uint64())
	}
	begun := make([]time.Time, l.depth)
	var took []time.Duration
	began, next := time.Now(), int64(0)
	send := func(slot int) error {
		binary.BigEndian.PutUint32(raw, 0x25609513)
		binary.BigEndian.PutUint16(raw[6:], 1) // NBD_CMD_WRITE
		binary.BigEndian.PutUint64(raw[8:], uint64(slot))
		if l.random {
			next = rand.Int64N(w.size/int64(l.size)) * int64(l.size)
		}
		binary.BigEndian.PutUint64(raw[16:], uint64(next))
		binary.BigEndian.PutUint32(raw[24:], uint32(l.size))
		binary.LittleEndian.PutUint64(raw[28:], rand.Uint64())
		next = (next + int64(l.size)) % (w.size / int64(l.size) * int64(l.size))
		begun[slot] = time.Now()
		_, err := w.conn.Write(raw)
		return err
	}
	for slot := range l.depth {
		if err := send(slot); err != nil {
			return result{}, err
		}
	}
	var reply [16]byte
	for under := l.depth; under > 0; {
		if _, err := io.ReadFull(w.conn, reply[:]); err != nil {
			return result{}, err
		}
		if number := binary.BigEndian.Uint32(reply[4:]); number != 0 {
			return result{}, fmt.Errorf("a write failed with error %d", number)
		}
		now, slot := time.Now(), int(binary.BigEndian.Uint64(reply[8:]))
		took = append(took, now.Sub(begun[slot]))
		if now.Sub(began) >= turn {
			under--
		} else if err := send(slot); err != nil {
			return result{}, err
		}
	}
	return resultOf(took, time.Since(began)), nil
}
