package porter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"vmctl/node/lease"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// The descriptors that the keeper gives.
const (
	lineFD     = 3
	listenerFD = 4
)

// calm is how long nobody must have come for the porter to go.
const calm = 5 * time.Second

const (
	maxHello     = 16 << 10         // bytes of a message before the sender is known, and of an enrolment
	maxEnrolling = 16               // enrolments at once
	slow         = 5 * time.Second  // ends a connection that is silent
	patience     = 10 * time.Second // for the witness's answer
)

// Main is the porter's process: it serves the listener until nobody has come
// for a while, or the witness is gone.
func Main(ctx context.Context, log *slog.Logger) error {
	firstToGo()
	l, err := newLine(lineFD)
	if err != nil {
		return fmt.Errorf("a witness starts this, people do not: %w", err)
	}
	file := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("a witness starts this, people do not: %w", err), l.Close())
	}
	door, ok := listener.(*net.TCPListener)
	if !ok {
		return errors.Join(fmt.Errorf("a witness listens on TCP, not %T", listener), listener.Close(), l.Close())
	}
	return serve(ctx, l, door, log)
}

func serve(ctx context.Context, l *line, door *net.TCPListener, log *slog.Logger) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer l.Close()
	defer cancel()
	defer door.Close()
	p := &desk{line: l, waiting: map[uint64]chan answer{}, enrolling: make(chan struct{}, maxEnrolling), log: log}
	set, err := p.setup()
	if err != nil {
		return err
	}
	pair, err := peer.OpenWitnessPair(set.Cert, set.Key)
	if err != nil {
		return err
	}
	p.name = set.Name
	helpers.Go(func() { defer cancel(); p.listen() })
	helpers.Go(func() { defer cancel(); p.beat(ctx) })
	server := &peer.Server{
		Self:    set.Name,
		Gate:    peer.WitnessGate{Pair: pair, Authority: p.authority},
		Options: wire.Options{MaxFrame: maxHello, Buffer: 1 << 10, ReadTimeout: slow, WriteTimeout: slow},
		Lean:    true,
		Log:     log,
		Handlers: map[string]peer.Handler{
			lease.Purpose:     p.handOver,
			peer.PurposeEnrol: p.enrol,
		},
	}
	if err := server.Serve(ctx, &entrance{TCPListener: door}); !errors.Is(err, errCalm) {
		return err
	}
	return nil
}

// errCalm ends the serving: nobody comes any more.
var errCalm = errors.New("nobody is at the door")

// entrance is a listener that ends when nobody has come for a while and nobody
// is inside. Who comes after that finds the socket's queue.
type entrance struct {
	*net.TCPListener
	mu     sync.Mutex
	guests int
}

// Accept implements net.Listener.
func (e *entrance) Accept() (net.Conn, error) {
	for {
		if err := e.SetDeadline(time.Now().Add(calm)); err != nil {
			return nil, err
		}
		conn, err := e.AcceptTCP()
		switch {
		case err == nil:
			e.count(1)
			return &visitor{TCPConn: conn, leave: sync.OnceFunc(func() { e.count(-1) })}, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case e.count(0) == 0:
			return nil, errCalm
		}
	}
}

func (e *entrance) count(n int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.guests += n
	return e.guests
}

// visitor is a connection that is counted until it is closed.
type visitor struct {
	*net.TCPConn
	leave func()
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	defer v.leave()
	return v.TCPConn.Close()
}
