package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/ha"
	"vmctl/node/wire"
	"vmctl/node/wire/record"
	"vmctl/vm/guard"
)

// loop owns every lease connection and steps every cluster's core, in one
// goroutine: a thousand quiet pairs cost it no stacks and no buffers. It never
// waits for the disk: a cluster that has something to store waits for the
// writer, and the others go on.
type loop struct {
	log     *slog.Logger
	poll    int // epoll
	bell    int // eventfd: something came from another goroutine
	links   map[int]*link
	scratch []byte
	plain   []byte
	out     []byte
	held    int // bytes that links hold
	swept   time.Time
	changed bool // connections came or went since the last sweep
	calm    int  // sweeps without that
	tidy    func(first bool)

	writer  *writer
	queue   []*cluster // have something to store
	failing bool
	fatal   error

	mu    sync.Mutex
	fresh []*link
	ended bool
}

func newLoop(w *writer, log *slog.Logger) (*loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the connections' poll: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(bell)})
	}
	if err != nil {
		return nil, fmt.Errorf("make the connections' bell: %w", err)
	}
	return &loop{
		log: log, poll: poll, bell: bell, writer: w, links: map[int]*link{},
		scratch: make([]byte, record.MaxRecord+quick),
	}, nil
}

// ring wakes the loop.
func (p *loop) ring() { _, _ = unix.Write(p.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// add hands a new link to the loop.
func (p *loop) add(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		_ = unix.Close(l.fd)
		return
	}
	p.fresh = append(p.fresh, l)
	p.ring()
}

// run serves until ctx ends or the store is of no more use. Every socket is
// closed then.
func (p *loop) run(ctx context.Context) error {
	defer p.end()
	stop := context.AfterFunc(ctx, p.ring)
	defer stop()
	events := make([]unix.EpollEvent, 128)
	for ctx.Err() == nil && p.fatal == nil {
		n, err := unix.EpollWait(p.poll, events, 1000)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for connections: %w", err)
		}
		for _, event := range events[:max(n, 0)] {
			if int(event.Fd) == p.bell {
				_, _ = unix.Read(p.bell, p.scratch[:8])
			} else if l := p.links[int(event.Fd)]; l != nil {
				p.ready(l, event.Events)
			}
		}
		p.welcome()
		p.stored()
		if len(p.queue) > 0 && p.writer.offer(p.queue) {
			p.queue = nil
		}
		p.sweep(time.Now())
	}
	return p.fatal
}

func (p *loop) end() {
	p.mu.Lock()
	p.ended = true
	for _, l := range p.fresh {
		_ = unix.Close(l.fd)
	}
	p.fresh = nil
	p.mu.Unlock()
	for _, l := range p.links {
		_ = unix.Close(l.fd)
	}
}

// close lets go of what the loop itself holds, after everything that rings.
func (p *loop) close() error { return errors.Join(unix.Close(p.bell), unix.Close(p.poll)) }

// welcome takes new links in. A node has one link: its newest.
func (p *loop) welcome() {
	p.mu.Lock()
	fresh := p.fresh
	p.fresh = nil
	p.mu.Unlock()
	for _, l := range fresh {
		c := l.cluster
		for _, older := range c.links {
			if older.node == l.node {
				p.drop(older, errors.New("the node made a new connection"))
				break
			}
		}
		if len(c.links) >= maxLinks {
			_ = unix.Close(l.fd)
			p.log.Warn("connection refused", "cluster", c.name, "node", l.node, "error", fmt.Errorf("%d connections: %w", len(c.links), errLimit))
			continue
		}
		l.armed = unix.EPOLLIN
		if err := unix.EpollCtl(p.poll, unix.EPOLL_CTL_ADD, l.fd, &unix.EpollEvent{Events: l.armed, Fd: int32(l.fd)}); err != nil {
			_ = unix.Close(l.fd)
			p.log.Warn("connection refused", "cluster", c.name, "node", l.node, "error", err)
			continue
		}
		p.links[l.fd] = l
		c.links = append(c.links, l)
		p.changed = true
	}
}

// drop ends a link.
func (p *loop) drop(l *link, why error) {
	if l.closed {
		return
	}
	l.closed = true
	p.held -= l.counted
	delete(p.links, l.fd)
	l.cluster.remove(l)
	// Said, not left to the closing: while Go still has its copy of the
	// descriptor, epoll would go on telling of a number that is another's by then.
	_ = unix.EpollCtl(p.poll, unix.EPOLL_CTL_DEL, l.fd, nil)
	_ = unix.Close(l.fd)
	p.changed = true
	level := slog.LevelDebug
	if errors.Is(why, errLimit) || errors.Is(why, wire.ErrMalformed) {
		level = slog.LevelWarn
	}
	p.log.Log(context.Background(), level, "lease connection ended", "cluster", l.cluster.name, "node", l.node, "error", why)
}

// use runs work on a link, keeps the account of what it holds, and has epoll
// wait for what can be done next.
func (p *loop) use(l *link, work func() error) {
	err := work()
	if l.closed {
		return
	}
	p.held += l.held() - l.counted
	l.counted = l.held()
	if err == nil {
		err = p.arm(l)
	}
	if err != nil {
		p.drop(l, err)
	}
	if p.held > maxBuffered {
		p.drop(p.largest(), fmt.Errorf("unfinished messages of %d bytes in all: %w", p.held, errLimit))
	}
}

func (p *loop) arm(l *link) error {
	want := uint32(unix.EPOLLIN)
	switch {
	case l.unsent != nil:
		want = unix.EPOLLOUT // who does not listen is not listened to
	case l.cluster.held != nil:
		want = 0
	}
	if want == l.armed {
		return nil
	}
	l.armed = want
	return unix.EpollCtl(p.poll, unix.EPOLL_CTL_MOD, l.fd, &unix.EpollEvent{Events: want, Fd: int32(l.fd)})
}

// ready does what epoll says can be done.
func (p *loop) ready(l *link, events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		p.drop(l, record.ErrClosed)
		return
	}
	p.use(l, func() error {
		if l.unsent != nil {
			if err := l.write(l.unsent); err != nil || l.unsent != nil {
				return err
			}
			return p.frames(l, l.plain)
		}
		if l.cluster.held != nil {
			return nil
		}
		plain, err := l.receive(p.scratch, append(p.plain[:0], l.plain...))
		if err != nil {
			return err
		}
		p.plain = plain[:0]
		if cap(plain) > 1<<16 {
			p.plain = nil
		}
		return p.frames(l, plain)
	})
}

// frames steps the core with every whole message, until it has something to
// store.
func (p *loop) frames(l *link, plain []byte) error {
	for l.cluster.held == nil && !l.closed && l.unsent == nil {
		size, kind, body, err := wire.CutFrame(plain, maxFrame)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		if l.frames++; l.frames > maxRate {
			return fmt.Errorf("more than %d messages a second: %w", maxRate, errLimit)
		}
		message, err := l.from.Message(kind, body)
		if err == nil {
			err = l.cluster.bounds(message)
		}
		if err != nil {
			return err
		}
		l.heard = ha.Time(guard.Now())
		plain = plain[size:]
		p.step(l.cluster, ha.Received{Message: message})
	}
	l.plain = keep(nil, plain)
	return nil
}

// step feeds a core one event. What must be durable goes to the writer, and the
// rest waits for it.
func (p *loop) step(c *cluster, event ha.Event) {
	actions := c.core.Step(ha.Time(guard.Now()), event)
	if durable(actions) > 0 {
		c.held = actions
		p.queue = append(p.queue, c)
		return
	}
	p.execute(c, actions)
}

func (p *loop) execute(c *cluster, actions []ha.Action) {
	for _, action := range actions {
		switch a := action.(type) {
		case ha.Send:
			if l := c.link(a.To); l != nil {
				p.use(l, func() error { return l.send(a.Message, &p.out) })
			}
		case ha.Note:
			p.log.Info("vote", "cluster", c.name, "guest", a.Guest, "verdict", a.Verdict, "reason", a.Reason)
		case ha.Alarm:
			p.log.Debug("alarm", "cluster", c.name, "kind", a.Kind, "on", a.On, "text", a.Text)
		}
	}
}
