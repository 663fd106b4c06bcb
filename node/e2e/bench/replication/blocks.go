package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vmctl/node/peer"
)

// The ways of replicating.
const (
	armNone  = "not replicated"
	armTwice = "written twice here"
	armStock = "QEMU's mirror"
	armCopy  = "QEMU's mirror, copied on"
	armOurs  = "ours"
	armOther = "ours, another build"
)

// diskSize is the size of the disk below the guest, in bytes.
func diskSize() int64 { return *size << 20 }

// side is the peer's side of ours, and the program that plays both.
type side struct {
	program string
	peer    *child
	addr    peer.Remote
}

// blocks is the rig below the guest.
type blocks struct {
	dir      string
	near     *daemon // QEMU's block layer, where the guest would be
	far      *daemon // the storage daemon that QEMU's own mirror writes to
	port     string  // where it listens
	self     string  // this program
	ours     map[string]*side
	identity peer.Sealed
	owner    *child  // of ours, or the one that only copies, while its turn lasts
	load     *writer // connected while a turn lasts
}

func newBlocks(ctx context.Context, dir string) (_ rig, err error) {
	b := &blocks{dir: dir, ours: map[string]*side{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	for _, name := range []string{"near", "far", "peer"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := fillEqual(diskSize(), b.path("near/disk"), b.path("near/second"), b.path("far/disk"), b.path("peer/disk"), b.path("peer/other")); err != nil {
		return nil, err
	}
	if b.near, err = startDaemon(ctx, b.path("near"), b.path("near/disk")); err != nil {
		return nil, err
	}
	if b.far, err = startDaemon(ctx, b.path("far"), b.path("far/disk")); err != nil {
		return nil, err
	}
	if b.port, err = freePort(); err != nil {
		return nil, err
	}
	far := block{b.far.monitor}
	if err := far.serve(ctx, object{"type": "inet", "data": object{"host": "127.0.0.1", "port": b.port}}); err != nil {
		return nil, err
	}
	if err := far.export(ctx, "d0", "far"); err != nil {
		return nil, err
	}
	identity, err := peer.Found("bench", "bench", "bench")
	if err != nil {
		return nil, err
	}
	b.identity = identity.Sealed
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if err := b.follow(ctx, armOurs, b.self, "peer/disk"); err != nil || *against == "" {
		return b, err
	}
	return b, b.follow(ctx, armOther, *against, "peer/other")
}

// follow starts the peer's side of a way of ours.
func (b *blocks) follow(ctx context.Context, arm, program, replica string) (err error) {
	s := &side{program: program, addr: peer.Remote{Name: b.identity.Node}}
	s.peer, err = startChild(ctx, program, rolePeer, peerOrders{Replica: b.path(replica), Size: diskSize(), Identity: b.identity, Profile: *profile}, &s.addr.Addr)
	if err == nil {
		b.ours[arm] = s
	}
	return err
}

func (b *blocks) path(name string) string { return filepath.Join(b.dir, name) }

// fillEqual makes files of a size with one content, none of it zero.
func fillEqual(size int64, paths ...string) error {
	random := rand.NewChaCha8([32]byte{1})
	chunk := make([]byte, 1<<20)
	var files []io.Writer
	for _, path := range paths {
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		defer file.Close()
		files = append(files, file)
	}
	all := io.MultiWriter(files...)
	for range size / int64(len(chunk)) {
		_, _ = random.Read(chunk) // never fails
		if _, err := all.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (b *blocks) arms() []string {
	if *against == "" {
		return blockArms
	}
	return append(slices.Clone(blockArms), armOther)
}

func (b *blocks) loads() []load { return blockLoads }

func (b *blocks) start(ctx context.Context, arm string) (err error) {
	near, socket := block{b.near.monitor}, b.path("near/nbd")
	switch arm {
	case armTwice:
		err = near.mirror(ctx, 0, object{"driver": "raw", "file": object{"driver": "file", "filename": b.path("near/second"), "aio": "threads"}})
	case armStock:
		err = near.mirror(ctx, 0, object{"driver": "nbd", "export": "far", "discard": "unmap", "detect-zeroes": "unmap",
			"server": object{"type": "inet", "host": "127.0.0.1", "port": b.port}})
	case armCopy:
		if b.owner, err = startChild(ctx, b.self, roleCopier, copierOrders{From: b.path("near/copy"), To: net.JoinHostPort("127.0.0.1", b.port)}, new(string)); err != nil {
			return err
		}
		err = near.mirror(ctx, 0, object{"driver": "nbd", "export": "far", "discard": "unmap", "detect-zeroes": "unmap",
			"server": object{"type": "unix", "path": b.path("near/copy")}})
	case armOurs, armOther:
		ours := b.ours[arm]
		b.owner, err = startChild(ctx, ours.program, roleOwner, ownerOrders{Monitor: b.near.second, Target: b.path("near/mirror"), Export: socket,
			Size: diskSize(), Identity: b.identity, Peer: ours.addr, Profile: *profile}, new(string))
	}
	if err != nil {
		return err
	}
	if b.ours[arm] == nil { // there our mirror has begun to serve
		if err := near.serve(ctx, object{"type": "unix", "data": object{"path": socket}}); err != nil {
			return err
		}
	}
	node := "top0"
	if arm != armNone {
		if node, err = near.filter(ctx); err != nil {
			return err
		}
	}
	if err := near.export(ctx, node, "load"); err != nil {
		return err
	}
	b.load, err = dialWriter(socket, "load")
	return err
}

// freePort is a port of the loopback that nobody has: QEMU does not tell which
// one it chose.
func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, errors.Join(err, listener.Close())
}

func (b *blocks) run(ctx context.Context, l load, turn time.Duration) (result, error) {
	return b.load.write(ctx, l, turn)
}

func (b *blocks) processes() []process {
	all := []process{{"writer", os.Getpid()}, {"QEMU", b.near.cmd.Process.Pid}, {"far daemon", b.far.cmd.Process.Pid}}
	if b.owner != nil {
		all = append(all, process{"between", b.owner.cmd.Process.Pid})
	}
	for _, arm := range slices.Sorted(maps.Keys(b.ours)) {
		all = append(all, process{"peer of " + arm, b.ours[arm].peer.cmd.Process.Pid})
	}
	return all
}

func (b *blocks) stop(ctx context.Context, arm string) error {
	near := block{b.near.monitor}
	err := b.load.close()
	if b.ours[arm] != nil {
		err = errors.Join(err, b.owner.stop())
		b.owner = nil
		return err
	}
	err = errors.Join(err, near.do(ctx, "nbd-server-stop", object{}))
	if arm != armNone {
		err = errors.Join(err, near.endMirror(ctx, 0))
	}
	if arm == armCopy {
		err = errors.Join(err, b.owner.stop())
		b.owner = nil
	}
	return err
}

func (b *blocks) close() (err error) {
	if b.owner != nil { // its turn did not begin
		err = b.owner.stop()
	}
	for _, d := range []*daemon{b.near, b.far} {
		if d != nil {
			err = errors.Join(err, d.close())
		}
	}
	for _, s := range b.ours {
		err = errors.Join(err, s.peer.stop())
	}
	if err != nil {
		return fmt.Errorf("end the bench: %w", err)
	}
	return nil
}
