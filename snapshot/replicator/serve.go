package replicator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"

	"vmctl/snapshot/nbd"
)

// Listeners are the bound sockets of a Replicator.
type Listeners map[string]net.Listener

// Listen binds the sockets of the disks, over stale ones of an earlier process.
// From its return on QEMU can connect; Serve answers. An agent that adopts a
// guest listens before it speaks QMP: QEMU may hang until the socket is back.
func (r *Replicator) Listen() (Listeners, error) {
	bound := Listeners{}
	for _, d := range r.opts.Disks {
		if bound[d.Socket] != nil {
			continue
		}
		listener, err := listen(d.Socket)
		if err != nil {
			bound.Close()
			return nil, fmt.Errorf("listen for the mirror of disk %s: %w", d.Name, err)
		}
		bound[d.Socket] = listener
	}
	return bound, nil
}

func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// Close closes the sockets; only needed when Serve is not called.
func (l Listeners) Close() {
	for _, listener := range l {
		listener.Close()
	}
}

// Serve serves QEMU's mirrors and runs the callbacks until ctx ends; then writes
// under way are left without an answer (QEMU sends them again to the next
// process), and an attached link ends. It returns when all is over, and may be
// called once.
func (r *Replicator) Serve(ctx context.Context, listeners Listeners) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	servers := map[string]map[string]nbd.Export{}
	for i, d := range r.opts.Disks {
		if servers[d.Socket] == nil {
			servers[d.Socket] = map[string]nbd.Export{}
		}
		servers[d.Socket][d.Name] = nbd.Export{Device: &device{r: r, index: i}, Exclusive: true, Connected: r.connected(i)}
	}
	var running sync.WaitGroup
	failures := make(chan error, len(listeners))
	for path, listener := range listeners {
		server := nbd.NewServer(servers[path], r.log)
		running.Go(func() {
			if err := server.Serve(ctx, listener); err != nil {
				failures <- err
				cancel()
			}
		})
	}
	running.Go(func() { r.keep(ctx) })
	running.Wait()
	r.close()
	r.mu.Lock()
	l := r.newest
	r.mu.Unlock()
	if l != nil {
		<-l.over
	}
	r.mu.Lock()
	r.work.file.close() // the file stays, for a process after this one
	r.mu.Unlock()
	close(failures)
	return <-failures
}

// connected is called as QEMU's mirror has connected. What happened between two
// connections nobody knows, so all is compared again; but for the one with which
// the mirrors of a map that was loaded come back, for which Keep answers.
func (r *Replicator) connected(disk int) func() {
	return func() {
		r.log.Info("mirror connected", "disk", r.opts.Disks[disk].Name)
		r.mu.Lock()
		expected := r.expected[disk]
		r.expected[disk] = false
		r.mu.Unlock()
		if expected {
			return
		}
		if err := r.Recheck(); err != nil {
			r.log.Error("everything is compared again, but not if this agent is killed now", "error", err)
		}
	}
}

// Loaded says whether what may differ is known from an earlier process, and which
// disks' mirrors have not connected since. It holds as long as the mirror jobs of
// that time are good: the caller looks, and calls Recheck if they are not.
func (r *Replicator) Loaded() (loaded bool, missing []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, d := range r.opts.Disks {
		if r.expected[i] {
			missing = append(missing, d.Name)
		}
	}
	return r.loaded, missing
}

// close refuses further writes and lets those that wait go.
func (r *Replicator) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	if r.link != nil {
		r.link.lose(ErrClosed)
	}
	r.broadcast()
}

// device is one disk as the mirror sees it.
type device struct {
	r     *Replicator
	index int
}

func (d *device) Size() int64 { return d.r.opts.Disks[d.index].Size }

// ReadAt is refused: the mirror writes only, and the disk itself is QEMU's.
func (d *device) ReadAt([]byte, int64) (int, error) { return 0, nbd.ErrNotSupported }

func (d *device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.r.forward(d.index, off, int64(len(p)), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// StartWrite is WriteAt for one who does not wait.
func (d *device) StartWrite(p []byte, off int64, done func(error)) { d.r.start(d.index, off, p, done) }

// Discard forwards zeroes. A TRIM leaves to QEMU's drivers what becomes of the
// content, so what they made of it is compared.
func (d *device) Discard(off, length int64, zero bool) error {
	if zero {
		return d.r.forward(d.index, off, length, nil)
	}
	d.r.recheckRange(d.index, off, length)
	return nil
}

// Flush does nothing: the peer makes writes durable every second and at every
// checkpoint, and the guest's own disk, which it can rely on, was flushed.
func (d *device) Flush() error { return nil }
