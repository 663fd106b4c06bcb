package nbd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Starter is a Device whose writes go on by themselves: no goroutine waits for one,
// and a long one is handed on while the rest of it is still being read.
type Starter interface {
	// StartWrite begins to store p at off. It calls done once, from any goroutine,
	// maybe before it returns; p is the Device's until then. While it does not
	// return the connection's next bytes are not read.
	StartWrite(p []byte, off int64, done func(error))
}

// pieceSize is how much of a long write is read before it is handed on, in bytes.
const pieceSize = 256 << 10

// starts says whether a request is handed on while it is read.
func (t *transmission) starts(r request) bool {
	return t.starter != nil && r.kind == cmdWrite && r.flags == 0 && r.check(t.export.Device.Size()) == 0 && !t.export.ReadOnly
}

// writing is a write whose pieces are under way.
type writing struct {
	t *transmission
	r request

	mu    sync.Mutex
	parts int // under way, and one for what is still being read
	cut   bool
	err   error // the first
}

// start reads the payload of a write, and hands it on piece by piece.
func (t *transmission) start(r request, in *bufio.Reader) error {
	size := r.payload()
	t.room.take(size)
	t.tasks.Add(1)
	w := &writing{t: t, r: r, parts: 1}
	for at := 0; at < size; {
		buf := takeBuffer(min(pieceSize, size-at))
		if _, err := io.ReadFull(in, buf); err != nil {
			giveBuffer(buf)
			w.mu.Lock()
			w.cut = true
			w.mu.Unlock()
			w.part(nil)
			return fmt.Errorf("read nbd write of %d bytes: %w", size, err)
		}
		w.mu.Lock()
		w.parts++
		w.mu.Unlock()
		t.starter.StartWrite(buf, int64(r.offset)+int64(at), func(err error) {
			giveBuffer(buf)
			w.part(err)
		})
		at += len(buf)
	}
	w.part(nil)
	return nil
}

// part is the end of one part; that of the last one answers.
func (w *writing) part(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.parts--
	last := w.parts == 0
	w.mu.Unlock()
	if !last {
		return
	}
	w.t.room.give(w.r.payload())
	if errors.Is(w.err, ErrHangup) {
		w.t.conn.Close()
	} else if !w.cut {
		w.t.answer(w.r, errno(w.err), nil)
	}
	w.t.tasks.Done()
}
