package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"
	"vmctl/snapshot/replica"
	"vmctl/snapshot/replicator"
	"vmctl/snapshot/shmtest"
)

const (
	tellerRAM   = 70 * memory.PageSize // more than one block, not a whole number of them
	tellerEpoch = 3
)

// teller is an owner without QEMU that tells a replica's life step by step, and
// keeps account of what the replica has promised.
type teller struct {
	t      testing.TB
	random *rand.Rand
	config StandbyConfig
	s      *Standby
	ledger *ledger

	disks  Stream
	lastID uint64

	ram      []byte
	file     *memory.File
	image    *memory.Image
	shadow   *memory.Shadow
	sender   *replica.Sender
	number   uint64
	instants map[uint64][]byte

	tried, acked uint64 // checkpoints
	floor        uint64 // acknowledged
	voiding      bool
	voided       bool
	taking       bool // a takeover has begun
	activating   bool // the disks' rollback, too
	taken        bool // and was done

	hold     uint64 // mark of the content that is to be kept, 0: none
	kept     bool   // it is
	settling bool   // it is to be forgotten
	settled  bool   // something was whole
}

// standbyIn describes a replica under root, its memory in ram.
func standbyIn(root, ram string) StandbyConfig {
	config := StandbyConfig{
		UUID: "8f14e45f-ceea-467f-9538-6d1a1f0f1a11", Epoch: tellerEpoch, Dir: filepath.Join(root, "guest", "replica"), RAMDir: ram,
		MaxRAM: func() int64 { return tellerRAM }, HoldLimit: 1 << 20, Log: slog.New(slog.DiscardHandler), BootID: "boot-1",
	}
	for i, sectors := range []int64{203, 130} {
		name := fmt.Sprintf("d%d", i)
		config.Disks = append(config.Disks, DiskImage{Name: name, Path: filepath.Join(root, "guest", "disks", name+".raw"), Size: sectors * sector})
	}
	return config
}

func newTeller(t testing.TB, seed uint64, config StandbyConfig) *teller {
	t.Helper()
	g := &teller{t: t, random: rand.New(rand.NewPCG(seed, 1)), config: config, ledger: newLedger(config.Disks),
		ram: make([]byte, tellerRAM), instants: map[uint64][]byte{}}
	path := filepath.Join(shmtest.TempDir(t), "ram")
	var err error
	g.file, err = memory.Create(path, tellerRAM)
	must(t, err)
	g.image, err = memory.Open(path, tellerRAM)
	must(t, err)
	t.Cleanup(func() {
		must(t, errors.Join(g.closeSender(), g.image.Close(), g.file.Close()))
	})
	return g
}

// Next numbers the checkpoints.
func (g *teller) Next(above uint64) (uint64, error) {
	g.number = max(g.number, above) + 1
	return g.number, nil
}

// agent starts a new agent: its shadow is empty, its first checkpoint full.
func (g *teller) agent() error {
	if err := g.closeSender(); err != nil {
		return err
	}
	var err error
	if g.shadow, err = memory.NewShadow(tellerRAM); err != nil {
		return err
	}
	g.sender, err = replica.NewSender(replica.SenderConfig{Epoch: g.config.Epoch, Shadow: g.shadow, Numbers: g, AckTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	_, err = g.sender.Attach(context.Background(), join(g.s.ServeCheckpoints))
	return err
}

func (g *teller) closeSender() (err error) {
	if g.sender != nil {
		err = errors.Join(g.sender.Close(), g.shadow.Close())
		g.sender = nil
	}
	return err
}

// join connects to a server of streams.
func join(serve func(context.Context, Stream) error) Stream {
	near, far := net.Pipe()
	go func() { _ = serve(context.Background(), wire.NewConn(far, wire.Options{})) }()
	return wire.NewConn(near, wire.Options{})
}

// link begins to replicate the disks.
func (g *teller) link() error {
	g.disks, g.lastID = join(g.s.ServeDisks), 0
	hello := &replicator.Hello{Guest: g.config.UUID, Epoch: g.config.Epoch, Holds: true}
	for _, d := range g.config.Disks {
		hello.Disks = append(hello.Disks, replicator.DiskInfo{Name: d.Name, Size: d.Size})
	}
	return g.disks.Send(replicator.KindHello, hello)
}

// frame sends one frame and waits until it is applied.
func (g *teller) frame(kind wire.Kind, body func(id uint64) any) error {
	g.lastID++
	// A replica that has failed complains, and takes nothing: neither may wait for
	// the other. A frame that is not taken is one that is not answered.
	stream, message := g.disks, body(g.lastID)
	go func() { _ = stream.Send(kind, message) }()
	for {
		kind, body, err := g.disks.Receive()
		if err != nil {
			return err
		}
		var ack replicator.Ack
		if kind != replicator.KindAck {
			return fmt.Errorf("the replica says %q", body)
		}
		if err := wire.Decode(body, &ack); err != nil || ack.ID == g.lastID {
			return err
		}
	}
}

func (g *teller) write(w ledgerWrite) error {
	number := uint32(slices.IndexFunc(g.config.Disks, func(d DiskImage) bool { return d.Name == w.disk }))
	err := g.frame(replicator.KindWrite, func(id uint64) any {
		return &replicator.Write{Disk: number, ID: id, Offset: int64(w.first) * sector, Data: w.data()}
	})
	if w.id == 0 {
		panic("zeroes are no write")
	}
	if err == nil {
		g.ledger.done(w)
	}
	return err
}

func (g *teller) zero(w ledgerWrite) error {
	number := uint32(slices.IndexFunc(g.config.Disks, func(d DiskImage) bool { return d.Name == w.disk }))
	err := g.frame(replicator.KindZero, func(id uint64) any {
		return &replicator.Zero{Disk: number, ID: id, Offset: int64(w.first) * sector, Length: int64(w.count) * sector}
	})
	if err == nil {
		g.ledger.done(w)
	}
	return err
}

// fill writes all of every disk.
func (g *teller) fill() error {
	for _, d := range g.config.Disks {
		if err := g.write(g.ledger.begin(d.Name, 0, int(d.Size/sector), false)); err != nil {
			return err
		}
	}
	return nil
}

// scribble does some writes.
func (g *teller) scribble(writes int) error {
	for range writes {
		w := g.ledger.some(g.random)
		do := g.write
		if w.id == 0 {
			do = g.zero
		}
		if err := do(w); err != nil {
			return err
		}
	}
	return nil
}

// pause takes a checkpoint without sending it.
func (g *teller) pause() (out replica.Outgoing, err error) {
	for range 5 {
		page := g.random.IntN(tellerRAM/memory.PageSize) * memory.PageSize
		g.ram[page+g.random.IntN(memory.PageSize)]++
		if _, err := g.file.WriteAt(g.ram[page:page+memory.PageSize], int64(page)); err != nil {
			return out, err
		}
	}
	if out.Sequence, err = g.sender.Number(); err != nil {
		return out, err
	}
	if _, err := memory.Scan(context.Background(), g.image, g.shadow, g.sender.Delta(), memory.Options{}); err != nil {
		return out, err
	}
	g.instants[out.Sequence] = slices.Clone(g.ram)
	g.ledger.mark(out.Sequence)
	out.Blob, out.RunState = fmt.Appendf(nil, "devices %d", out.Sequence), "running"
	return out, g.frame(replicator.KindMarker, func(id uint64) any { return &replicator.Marker{ID: id, Sequence: out.Sequence} })
}

// checkpoint takes one, goes on writing, and sends it.
func (g *teller) checkpoint() error {
	out, err := g.pause()
	if err != nil {
		return err
	}
	if err := g.scribble(3); err != nil {
		return err
	}
	g.tried = out.Sequence
	if _, err := g.sender.Send(context.Background(), out); err != nil {
		return err
	}
	g.acked, g.floor = out.Sequence, max(g.floor, g.config.Epoch)
	g.ledger.promise(out.Sequence)
	return nil
}

// abandon takes a checkpoint of which only the marker arrives.
func (g *teller) abandon() error {
	if _, err := g.pause(); err != nil {
		return err
	}
	return g.scribble(3)
}

// flush is what the peer does every second.
func (g *teller) flush() error {
	if err := g.s.receiver.Sync(); err != nil {
		return err
	}
	g.ledger.promise(0)
	return nil
}
