package porter

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/node/wire/record"
)

// desk is where the porter asks the witness and hands links over.
type desk struct {
	line      *line
	name      string // the witness's
	enrolling chan struct{}
	log       *slog.Logger

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer // nil: the witness is gone
}

var errGone = errors.New("the witness does not answer")

// setup is the first thing that the witness says.
func (d *desk) setup() (s setup, err error) {
	if err := d.line.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return s, err
	}
	p, err := d.line.receive(make([]byte, maxPacket+1))
	if err == nil && p.kind != kindSetup {
		err = fmt.Errorf("a packet of kind %d at first: %w", p.kind, ErrNonsense)
	}
	if err == nil {
		err = wire.Decode(p.body, &s)
	}
	p.close()
	return s, errors.Join(err, d.line.SetReadDeadline(time.Time{}))
}

// listen takes the witness's answers until there are no more.
func (d *desk) listen() {
	buf := make([]byte, maxPacket+1)
	for {
		p, err := d.line.receive(buf)
		var a answer
		if err == nil {
			err = wire.Decode(p.body, &a)
		}
		p.close()
		d.mu.Lock()
		if err != nil {
			for _, c := range d.waiting {
				close(c)
			}
			d.waiting = nil
			d.mu.Unlock()
			return
		}
		c := d.waiting[a.ID]
		delete(d.waiting, a.ID)
		d.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
}

// beat tells the witness that this process runs.
func (d *desk) beat(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		if d.line.send(kindAlive, nil) != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask sends what question makes of a number, and waits for the answer to it.
func (d *desk) ask(kind byte, question func(id uint64) any) (answer, error) {
	c := make(chan answer, 1)
	d.mu.Lock()
	if d.waiting == nil {
		d.mu.Unlock()
		return answer{}, errGone
	}
	d.last++
	id := d.last
	d.waiting[id] = c
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.waiting, id)
		d.mu.Unlock()
	}()
	if err := d.line.send(kind, question(id)); err != nil {
		return answer{}, err
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case a, ok := <-c:
		if !ok {
			return a, errGone
		}
		return a, a.refusal()
	case <-late.C:
		return answer{}, fmt.Errorf("%w within %s", errGone, patience)
	}
}

func (a answer) refusal() error {
	switch {
	case a.Text == "":
		return nil
	case a.Code == "":
		return errors.New(a.Text)
	}
	return &wire.Refused{Code: a.Code, Message: a.Text}
}

func (d *desk) authority(cluster string) ([]byte, error) {
	a, err := d.ask(kindAuthority, func(id uint64) any { return authority{ID: id, Cluster: cluster} })
	return a.Data, err
}

// enrol passes a cluster's request on.
func (d *desk) enrol(_ context.Context, conn *wire.Conn, hello wire.Hello) {
	select {
	case d.enrolling <- struct{}{}:
		defer func() { <-d.enrolling }()
	default:
		d.log.Warn("enrolment refused", "cluster", hello.Cluster, "error", fmt.Errorf("%d are under way", maxEnrolling))
		return
	}
	var request peer.EnrolRequest
	err := peer.Answer(conn, &request, func() (any, error) {
		if request.Cluster != hello.Cluster {
			return nil, refuse("the enrolment names two clusters")
		}
		if _, err := x509.ParseCertificate(request.CACert); err != nil {
			return nil, refuse("the enrolment has no certificate of the cluster")
		}
		if _, err := d.ask(kindEnrol, func(id uint64) any { return enrolment{ID: id, Request: request} }); err != nil {
			return nil, err
		}
		return peer.EnrolReply{Witness: d.name}, nil
	})
	if err != nil {
		d.log.Info("enrolment refused", "cluster", hello.Cluster, "error", err)
	}
}

func refuse(text string) error { return &wire.Refused{Code: string(api.Usage), Message: text} }

// handOver gives a node's connection to the witness: this process has neither
// its socket nor its keys then.
func (d *desk) handOver(_ context.Context, conn *wire.Conn, hello wire.Hello) {
	if err := d.give(conn, hello); err != nil {
		d.log.Info("connection refused", "cluster", hello.Cluster, "node", hello.Node, "error", err)
	}
}

func (d *desk) give(conn *wire.Conn, hello wire.Hello) error {
	stream, err := conn.Release()
	if err != nil {
		return err
	}
	secure, ok := stream.(*record.Conn)
	if !ok {
		return fmt.Errorf("a lease connection on %T", stream)
	}
	raw, in, out, err := secure.Release()
	if err != nil {
		return err
	}
	l := link{Cluster: hello.Cluster, Node: hello.Node, Version: conn.Version(), In: in.Pack(), Out: out.Pack()}
	return withSocket(raw, func(fd int) error { return d.line.send(kindLink, l, fd) })
}

// withSocket lends a connection's descriptor.
func withSocket(raw net.Conn, use func(fd int) error) error {
	socket, ok := raw.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no socket", raw)
	}
	control, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	failed := control.Control(func(fd uintptr) { err = use(int(fd)) })
	return errors.Join(failed, err)
}
