package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"vmctl/snapshot/memory"
	"vmctl/snapshot/nbd"

	"golang.org/x/sys/unix"
)

// synthetic is a guest without QEMU, as its agent sees QEMU: it writes memory and
// disks, every disk write first to the disk and then through NBD to the mirror's
// target (write-blocking); stop waits for writes under way; a mirror whose target
// has gone connects again and sends again what was not answered.
type synthetic struct {
	dir    string
	ledger *ledger
	ram    []byte
	mirror *Mirror
	export *nbd.Server

	mu       sync.Mutex
	content  map[string][]byte // the disks themselves
	links    map[string]*mirrorLink
	instants map[uint64][]byte
	pause    uint64

	run     chan struct{} // a token for each writer; whoever stops the guest has all
	stopped bool
	dead    context.Context
	kill    context.CancelFunc
	writers sync.WaitGroup
}

const syntheticWriters = 3

func newSynthetic(t testing.TB, dir string, disks []DiskImage) *synthetic {
	t.Helper()
	g := &synthetic{dir: dir, ledger: newLedger(disks), content: map[string][]byte{}, links: map[string]*mirrorLink{}, instants: map[uint64][]byte{}, run: make(chan struct{}, syntheticWriters)}
	g.dead, g.kill = context.WithCancel(context.Background())
	file, err := memory.Create(g.ramPath(), tellerRAM)
	must(t, err)
	must(t, file.Close())
	fd, err := unix.Open(g.ramPath(), unix.O_RDWR, 0)
	must(t, err)
	g.ram, err = unix.Mmap(fd, 0, tellerRAM, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, errors.Join(err, unix.Close(fd)))
	g.mirror = &Mirror{Monitor: g, Target: filepath.Join(dir, "target"), Export: filepath.Join(dir, "export")}
	exports := map[string]nbd.Export{}
	for _, d := range disks {
		g.mirror.Disks = append(g.mirror.Disks, MirrorDisk{Name: d.Name, Size: d.Size})
		g.content[d.Name] = make([]byte, d.Size)
		g.links[d.Name] = &mirrorLink{g: g, disk: d.Name}
		exports[d.Name] = nbd.Export{Device: &liveDisk{g, d.Name}, ReadOnly: true}
	}
	g.export = nbd.NewServer(exports, slog.New(slog.DiscardHandler))
	listener, err := net.Listen("unix", g.mirror.Export)
	must(t, err)
	g.writers.Go(func() { _ = g.export.Serve(g.dead, listener) })
	t.Cleanup(func() {
		g.kill()
		g.writers.Wait()
		must(t, unix.Munmap(g.ram))
	})
	return g
}

func (g *synthetic) ramPath() string { return filepath.Join(g.dir, "ram") }

// liveDisk is the read-only export of a disk.
type liveDisk struct {
	g    *synthetic
	name string
}

func (d *liveDisk) Size() int64 { return int64(len(d.g.content[d.name])) }
func (d *liveDisk) ReadAt(p []byte, off int64) (int, error) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return copy(p, d.g.content[d.name][off:]), nil
}
func (d *liveDisk) WriteAt([]byte, int64) (int, error) { return 0, nbd.ErrNotSupported }
func (d *liveDisk) Discard(int64, int64, bool) error   { return nbd.ErrNotSupported }
func (d *liveDisk) Flush() error                       { return nil }

// begin lets the guest run.
func (g *synthetic) begin(seed uint64) {
	for n := range syntheticWriters {
		g.run <- struct{}{}
		g.writers.Go(func() { g.work(rand.New(rand.NewPCG(seed, uint64(n))), n) })
	}
}

// work is one writer. It has sectors and pages of its own.
func (g *synthetic) work(random *rand.Rand, n int) {
	for {
		select {
		case <-g.run:
		case <-g.dead.Done():
			return
		}
		page := (random.IntN(tellerRAM/memory.PageSize/syntheticWriters)*syntheticWriters + n) * memory.PageSize
		g.ram[page+random.IntN(memory.PageSize)]++
		if g.write(random, n) != nil {
			return // dead: never stopped and drained again
		}
		g.run <- struct{}{}
		time.Sleep(time.Duration(random.IntN(600)) * time.Microsecond)
	}
}

// write does one write of the guest's.
func (g *synthetic) write(random *rand.Rand, n int) error {
	d := g.mirror.Disks[random.IntN(len(g.mirror.Disks))]
	share := int(d.Size/sector) / syntheticWriters
	count := 1 + random.IntN(min(16, share))
	w := g.ledger.begin(d.Name, n*share+random.IntN(share-count+1), count, random.IntN(6) == 0)
	told := g.ledger.tell(n, w)
	g.mu.Lock()
	data, off := w.data(), w.first*sector
	if data == nil {
		clear(g.content[d.Name][off : off+count*sector])
	}
	copy(g.content[d.Name][off:], data)
	g.mu.Unlock()
	if err := g.links[d.Name].forward(w); err != nil {
		return err
	}
	g.ledger.done(w)
	g.ledger.told(told)
	return nil
}

func (g *synthetic) Execute(ctx context.Context, command string, _, reply any) error {
	switch command {
	case "query-status":
		reply.(*struct{ Status string }).Status = "running"
	case "query-block-jobs":
		jobs := reply.(*[]blockJob)
		for i := range g.mirror.Disks {
			*jobs = append(*jobs, blockJob{Device: mirrorJob(i), Ready: true, IOStatus: "ok", Status: "ready"})
		}
	case "stop":
		return g.stop(ctx)
	case "cont":
		if g.stopped {
			g.stopped = false
			for range syntheticWriters {
				g.run <- struct{}{}
			}
		}
	}
	return nil
}

// stop stops the guest once its writes are answered, as QEMU does.
func (g *synthetic) stop(ctx context.Context) error {
	for had := range syntheticWriters {
		select {
		case <-g.run:
		case <-ctx.Done():
			for range had {
				g.run <- struct{}{}
			}
			return ctx.Err()
		case <-g.dead.Done():
			return errDead
		}
	}
	g.stopped = true
	g.mu.Lock()
	g.instants[g.pause] = slices.Clone(g.ram)
	g.mu.Unlock()
	g.ledger.mark(g.pause)
	return nil
}

func (g *synthetic) SaveDevices(context.Context) ([]byte, error) {
	return fmt.Appendf(nil, "devices %d", g.pause), nil
}
func (g *synthetic) BeginPause(_ context.Context, id uint64, _ time.Duration) error {
	g.pause = id
	return nil
}
func (g *synthetic) EndPause(context.Context, uint64) (bool, error) { return false, nil }
func (g *synthetic) Exclusive(ctx context.Context, f func(context.Context) error) error {
	return f(ctx)
}

// mirrorLink is a mirror's way to its target, for one write after the other.
type mirrorLink struct {
	g    *synthetic
	disk string
	mu   sync.Mutex
	conn net.Conn
	stop func() bool
}

func (l *mirrorLink) close() {
	if l.conn != nil {
		l.stop()
		l.conn.Close()
		l.conn = nil
	}
}

// forward sends a write until it is answered, or the guest is dead.
func (l *mirrorLink) forward(w ledgerWrite) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.g.dead.Err() == nil {
		err := l.try(w)
		if err == nil {
			return nil
		}
		l.close()
		select {
		case <-time.After(2 * time.Millisecond):
		case <-l.g.dead.Done():
		}
	}
	return errDead
}

func (l *mirrorLink) try(w ledgerWrite) error {
	if l.conn == nil {
		conn, err := net.Dial("unix", l.g.mirror.Target)
		if err != nil {
			return err
		}
		l.conn, l.stop = conn, context.AfterFunc(l.g.dead, func() { conn.Close() })
		if err := l.enter(); err != nil {
			return err
		}
	}
	const magic, write, zeroes = 0x25609513, 1, 6
	kind, data := uint16(write), w.data()
	if data == nil {
		kind = zeroes
	}
	raw := binary.BigEndian.AppendUint32(nil, magic)
	raw = binary.BigEndian.AppendUint32(raw, uint32(kind))
	raw = binary.BigEndian.AppendUint64(raw, w.id)
	raw = binary.BigEndian.AppendUint64(raw, uint64(w.first)*sector)
	raw = binary.BigEndian.AppendUint32(raw, uint32(w.count)*sector)
	if _, err := l.conn.Write(append(raw, data...)); err != nil {
		return err
	}
	var answer [16]byte
	if _, err := io.ReadFull(l.conn, answer[:]); err != nil {
		return err
	}
	if number := binary.BigEndian.Uint32(answer[4:]); number != 0 || binary.BigEndian.Uint64(answer[8:]) != w.id {
		panic(fmt.Sprintf("the mirror's target fails a write: error %d", number)) // QEMU would go on without it
	}
	return nil
}

// enter is the oldest handshake that there is.
func (l *mirrorLink) enter() error {
	var hello [18]byte
	if _, err := io.ReadFull(l.conn, hello[:]); err != nil {
		return err
	}
	raw := binary.BigEndian.AppendUint32(nil, 3) // newstyle, no zeroes
	raw = append(raw, "IHAVEOPT"...)
	raw = binary.BigEndian.AppendUint32(raw, 1) // export name
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(l.disk)))
	if _, err := l.conn.Write(append(raw, l.disk...)); err != nil {
		return err
	}
	var size [10]byte
	_, err := io.ReadFull(l.conn, size[:])
	return err
}
