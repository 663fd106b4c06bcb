package porter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/node/peer"
	"vmctl/node/wire/record"
)

// Command starts a porter. Its descriptors 3 and 4 are what Main expects.
type Command struct {
	Path string
	Args []string // the first is the name
	Env  []string
}

// Link is a lease connection of a node that has proved who it is. Whoever takes
// it owns the socket.
type Link struct {
	FD            int
	Cluster, Node string
	Version       int // of the wire
	In, Out       record.Keys
}

// House is the witness, as its door knows it. It is asked by one goroutine.
type House interface {
	// Authority is the certificate of a cluster's authority.
	Authority(cluster string) ([]byte, error)
	Enrol(peer.EnrolRequest) error
	Take(Link)
}

// Keeper starts porters when they are needed, and looks after them.
type Keeper struct {
	Command   Command
	Name      string // the witness's
	Cert, Key []byte
	House     House
	Log       *slog.Logger
}

// Pauses before the next porter, if one ended badly.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

// Run serves until ctx ends, then closes the listener. No porter outlives it.
func (k *Keeper) Run(ctx context.Context, listener *net.TCPListener) error {
	door, err := listener.File()
	if err = errors.Join(err, listener.Close()); err != nil {
		return fmt.Errorf("keep the listening socket: %w", err)
	}
	defer door.Close()
	stop := context.AfterFunc(ctx, func() { _ = door.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	pause := firstPause
	for {
		fd, err := knock(door)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = k.serve(ctx, fd)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			pause = firstPause
			continue
		}
		k.Log.Warn("handshakes under way are lost: their process ended badly", "error", err, "next in", pause)
		select {
		case <-time.After(pause):
			pause = min(2*pause, mostPause)
		case <-ctx.Done():
		}
	}
}

// knock waits until somebody wants in, and gives the listener's descriptor.
func knock(door *os.File) (fd int, err error) {
	raw, err := door.SyscallConn()
	if err != nil {
		return -1, err
	}
	var failed error
	err = raw.Read(func(listener uintptr) bool {
		fd = int(listener)
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		if err != nil && err != unix.EINTR {
			failed = fmt.Errorf("look who is at the door: %w", err)
		}
		return n > 0 || failed != nil
	})
	return fd, errors.Join(err, failed)
}

// serve is a porter's life. It is nil if the porter ended because nobody came
// any more.
func (k *Keeper) serve(ctx context.Context, listener int) error {
	began := time.Now()
	child, err := k.start(listener)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { child.line.Close() })
	defer stop()
	err = child.line.send(kindSetup, setup{Name: k.Name, Cert: k.Cert, Key: k.Key})
	if err == nil {
		err = k.listen(child.line)
	}
	if err = child.end(err); err == nil && time.Since(began) < calm {
		err = errors.New("it ended before anybody can have stayed away for long")
	}
	return err
}

// listen takes what a porter says until it is silent for good.
func (k *Keeper) listen(l *line) error {
	buf := make([]byte, maxPacket+1)
	for missing := 0; ; {
		if err := l.SetReadDeadline(time.Now().Add(beat)); err != nil {
			return err
		}
		p, err := l.receive(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// In steps: if it was this process that did not run, the packets are there.
			if missing++; missing >= quiet {
				return fmt.Errorf("it said nothing for %s", quiet*beat)
			}
			continue
		case err != nil:
			return err
		}
		missing = 0
		err = k.heard(l, &p)
		p.close()
		if err != nil {
			return err
		}
	}
}
