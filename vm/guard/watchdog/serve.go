package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/vm/guard"
)

// attachBound is how long a guard may take to be attached to.
const attachBound = 500 * time.Millisecond

// ErrRunning: another keeper serves the socket.
var ErrRunning = errors.New("a keeper of the watchdog runs already")

// Main is the keeper's process: it serves agents until nobody needs the device. A
// canceled ctx asks it to end, which it does once no guest needs the device.
func Main(ctx context.Context, c Config) error {
	listener, err := listen(c.Socket)
	if err != nil {
		return fmt.Errorf("keep the watchdog %s: %w", c.Device, err)
	}
	if err := guard.Harden(); err != nil {
		c.Log.Warn("the keeper is not fully protected", "error", err)
	}
	return keep(ctx, c, listener)
}

func keep(ctx context.Context, c Config, listener *net.UnixListener) error {
	k := newKeeper(c)
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.tasks.Go(func() { k.serve(inner, listener) })
	k.run(inner, ctx.Done())
	cancel()
	_ = listener.Close() // and the socket goes with it
	k.tasks.Wait()
	return nil
}

// listen takes the lock of the socket, which is held for life, and the socket.
func listen(path string) (*net.UnixListener, error) {
	lock, err := unix.Open(path+".lock", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock its socket: %w", err)
	}
	if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(lock)
		return nil, fmt.Errorf("%w (socket %s): %w", ErrRunning, path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen for agents: %w", err)
	}
	return l, os.Chmod(path, 0o600)
}

func (k *keeper) serve(ctx context.Context, l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			k.config.Log.Error("an agent was not heard", "error", err)
			time.Sleep(attachBound) // no descriptors left, perhaps
			continue
		}
		k.tasks.Go(func() { k.agent(ctx, conn) })
	}
}

// agent answers one agent until it goes.
func (k *keeper) agent(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if !k.count(ctx, 1) {
		return
	}
	defer k.count(ctx, -1)
	buf := make([]byte, maxPacket)
	for {
		n, err := conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		var r request
		answer, refused := State{}, json.Unmarshal(buf[:n], &r)
		if refused == nil && r.Watch != "" {
			refused = k.watch(ctx, r.Watch)
		}
		tell := make(chan State, 1)
		select {
		case k.asked <- tell:
			answer = <-tell
		case <-ctx.Done():
			return
		}
		if refused != nil {
			answer.Refused = refused.Error()
		}
		packet, err := json.Marshal(answer)
		if err != nil {
			return
		}
		if _, err := conn.Write(packet); err != nil {
			return
		}
	}
}

func (k *keeper) count(ctx context.Context, n int) bool {
	select {
	case k.agents <- n:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch attaches to a guard. One whose QEMU is gone needs no looking after.
func (k *keeper) watch(ctx context.Context, path string) error {
	bound, cancel := context.WithTimeout(ctx, attachBound)
	defer cancel()
	client, err := guard.Attach(bound, path)
	if errors.Is(err, guard.ErrGone) || errors.Is(err, guard.ErrNoGuard) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look after the guard of %s: %w", path, err)
	}
	select {
	case k.added <- client:
		return nil
	case <-ctx.Done():
		return client.Close()
	}
}
