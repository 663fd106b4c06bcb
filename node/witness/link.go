package witness

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vmctl/ha"
	"vmctl/node/lease"
	"vmctl/node/wire"
	"vmctl/node/wire/record"
	"vmctl/node/witness/porter"
	"vmctl/vm/guard"
)

// link is one lease connection of a node. It is the loop's: a few hundred bytes
// while it is quiet.
type link struct {
	fd      int
	cluster *cluster
	node    ha.NodeID
	in, out record.Keys
	from    lease.Decoder
	form    lease.Encoder

	sealed []byte // a part of a record
	plain  []byte // a part of a frame, or frames that wait for the cluster's store
	unsent []byte

	counted int // bytes of these that the loop's account has
	heard   ha.Time
	frames  uint32 // since the last sweep
	armed   uint32 // what epoll waits for
	closed  bool
}

// newLink takes a connection over from the process that made its handshake.
func newLink(from porter.Link, c *cluster) *link {
	return &link{
		fd: from.FD, cluster: c, node: ha.NodeID(from.Node), in: from.In, out: from.Out, heard: ha.Time(guard.Now()),
		from: lease.NewDecoder(ha.NodeID(from.Node)), form: lease.NewEncoder(from.Version),
	}
}

// held is how many bytes the link makes the witness keep.
func (l *link) held() int { return len(l.sealed) + len(l.plain) + len(l.unsent) }

// quick is how much is read at once from a link that is not in the middle of a
// message: a few heartbeats. It bounds what one link may make of the loop's turn.
const quick = 4 << 10

// receive reads what came and appends to plain what it opened.
func (l *link) receive(scratch, plain []byte) ([]byte, error) {
	n := copy(scratch, l.sealed)
	most := len(scratch)
	if l.held() == 0 {
		most = quick
	}
	got, err := unix.Read(l.fd, scratch[n:most])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return plain, nil
	case err != nil:
		return plain, fmt.Errorf("read: %w", err)
	case got == 0:
		return plain, record.ErrClosed
	}
	data := scratch[:n+got]
	for {
		size, err := record.Length(data)
		if err != nil {
			return plain, err
		}
		if size == 0 || size > len(data) {
			break
		}
		opened, err := l.in.Open(data[:size])
		if err != nil {
			return plain, err
		}
		if len(opened) == 0 {
			return plain, fmt.Errorf("an empty record: %w", record.ErrRecord)
		}
		plain = append(plain, opened...)
		data = data[size:]
	}
	l.sealed = keep(l.sealed, data)
	return plain, nil
}

// keep copies what is left for later; nothing is nil, so that a quiet link has
// no buffers.
func keep(to, left []byte) []byte {
	if len(left) == 0 {
		return nil
	}
	return append(to[:0], left...)
}

// send makes a frame of a message and writes what the socket takes of it.
// scratch saves making room for it.
func (l *link) send(m ha.Message, scratch *[]byte) error {
	kind, body, err := l.form.Frame(m)
	if err != nil {
		return err
	}
	frame, err := wire.AppendFrame((*scratch)[:0], maxFrame, kind, body)
	if err != nil {
		return err
	}
	sealed, err := l.out.Seal(frame, frame)
	if err != nil {
		return err
	}
	if cap(sealed) <= quick {
		*scratch = sealed
	}
	sealed = sealed[len(frame):]
	if l.unsent != nil {
		l.unsent = append(l.unsent, sealed...)
		return nil
	}
	return l.write(sealed)
}

func (l *link) write(data []byte) error {
	n, err := unix.Write(l.fd, data)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		n = 0
	case err != nil:
		return fmt.Errorf("write: %w", err)
	}
	l.unsent = keep(nil, data[n:])
	return nil
}
