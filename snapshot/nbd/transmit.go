package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"vmctl/node/wire/prompt"
)

const (
	// maxInFlight and maxInFlightBytes bound the requests of one connection
	// that wait for the Device; the client's next one waits on the socket.
	maxInFlight      = 128
	maxInFlightBytes = 64 << 20
)

// transmission is the request phase of one connection.
type transmission struct {
	conn    net.Conn
	export  *served
	starter Starter // nil: the Device is none
	room    room
	out     replies
	tasks   sync.WaitGroup
}

// transmit serves requests until the client disconnects or the connection
// fails, then waits for those under way.
func transmit(conn net.Conn, export *served) error {
	conn = prompt.New(conn)
	t := &transmission{conn: conn, export: export, out: replies{conn: conn}}
	t.starter, _ = export.Device.(Starter)
	t.room.init()
	defer t.tasks.Wait()
	in := bufio.NewReaderSize(conn, 64<<10)
	var header [requestSize]byte
	for {
		if _, err := io.ReadFull(in, header[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read nbd request: %w", err)
		}
		r, err := parseRequest(header[:])
		if err != nil {
			return err
		}
		if r.kind == cmdDisc {
			return nil
		}
		if err := t.accept(r, in); err != nil {
			return err
		}
	}
}

// accept takes the payload of a request and starts it.
func (t *transmission) accept(r request, in *bufio.Reader) error {
	if r.payload() > MaxRequest {
		return fmt.Errorf("nbd write of %d bytes: %w", r.length, ErrProtocol)
	}
	if t.starts(r) {
		return t.start(r, in)
	}
	size := r.payload()
	if r.kind == cmdRead && r.length <= MaxRequest {
		size = int(r.length)
	}
	t.room.take(size)
	buf := takeBuffer(size)
	if r.kind == cmdWrite {
		if _, err := io.ReadFull(in, buf); err != nil {
			giveBuffer(buf)
			t.room.give(size)
			return fmt.Errorf("read nbd write of %d bytes: %w", size, err)
		}
	}
	t.tasks.Go(func() {
		t.run(r, buf)
		giveBuffer(buf)
		t.room.give(size)
	})
	return nil
}

// run executes one request on the Device and answers it. A failing answer ends
// the connection, which the reading side notices.
func (t *transmission) run(r request, buf []byte) {
	number := uint32(r.check(t.export.Device.Size()))
	if number == 0 {
		err := t.execute(r, buf)
		if errors.Is(err, ErrHangup) {
			t.conn.Close()
			return
		}
		number = errno(err)
	}
	var data []byte
	if r.kind == cmdRead && number == 0 {
		data = buf
	}
	t.answer(r, number, data)
}

func (t *transmission) answer(r request, number uint32, data []byte) {
	if err := t.out.send(r.handle, number, data); err != nil {
		t.conn.Close()
	}
}

func (t *transmission) execute(r request, buf []byte) error {
	device, off := t.export.Device, int64(r.offset)
	if t.export.ReadOnly && (r.kind == cmdWrite || r.kind == cmdTrim || r.kind == cmdWriteZeroes) {
		return syscall.EPERM
	}
	var err error
	switch r.kind {
	case cmdRead:
		n, err := device.ReadAt(buf, off)
		if n == len(buf) && errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	case cmdWrite:
		_, err = device.WriteAt(buf, off)
	case cmdTrim:
		err = device.Discard(off, int64(r.length), false)
	case cmdWriteZeroes:
		// Zeroing a Device is always fast, so FAST_ZERO needs no refusal.
		err = device.Discard(off, int64(r.length), true)
	case cmdFlush:
		return device.Flush()
	}
	if err == nil && r.flags&cmdFlagFUA != 0 {
		err = device.Flush()
	}
	return err
}

// replies writes simple replies. Those that come while one is being written
// leave together.
type replies struct {
	conn net.Conn

	mu      sync.Mutex
	pending []byte
	spare   []byte
	writing bool
	idle    sync.Cond
	err     error
}

func (o *replies) send(handle uint64, number uint32, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.idle.L == nil {
		o.idle.L = &o.mu
	}
	if len(data) > 0 { // its bytes are not copied: it waits for its turn
		for o.writing {
			o.idle.Wait()
		}
	}
	o.pending = binary.BigEndian.AppendUint32(o.pending, magicSimple)
	o.pending = binary.BigEndian.AppendUint32(o.pending, number)
	o.pending = binary.BigEndian.AppendUint64(o.pending, handle)
	if o.writing {
		return o.err
	}
	o.writing = true
	for (len(o.pending) > 0 || len(data) > 0) && o.err == nil {
		head := o.pending
		o.pending, o.spare = o.spare[:0], nil
		o.mu.Unlock()
		_, err := o.conn.Write(head)
		if err == nil && len(data) > 0 {
			_, err = o.conn.Write(data)
		}
		data = nil
		o.mu.Lock()
		o.spare = head[:0]
		if err != nil {
			o.err = err
		}
	}
	o.writing = false
	o.idle.Broadcast()
	return o.err
}

// room counts requests and payload bytes in flight.
type room struct {
	mu    sync.Mutex
	freed sync.Cond
	count int
	bytes int
}

func (r *room) init() { r.freed.L = &r.mu }

func (r *room) take(size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count >= maxInFlight || (r.count > 0 && r.bytes+size > maxInFlightBytes) {
		r.freed.Wait()
	}
	r.count++
	r.bytes += size
}

func (r *room) give(size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count--
	r.bytes -= size
	r.freed.Signal()
}
