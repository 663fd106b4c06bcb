package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/snapshot/replicator"
	"vmctl/snapshot/undo"
)

const (
	guestName = "bench"
	diskName  = "d0"
)

// peerOrders say what the peer's side has to do.
type peerOrders struct {
	Replica  string // path
	Size     int64
	Identity peer.Sealed
	Profile  string
}

// follow is what an agent does for the disk of a guest that its peer owns: it
// applies writes, keeps the undo log, and commits each marker.
func follow(ctx context.Context) (err error) {
	var orders peerOrders
	ctx, err = takeOrders(ctx, &orders)
	if err != nil {
		return err
	}
	stop, err := profileTo(orders.Profile, rolePeer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	disk, err := undo.Open(orders.Replica, orders.Size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	quiet := slog.New(slog.DiscardHandler)
	receiver := replicator.NewReceiver(replicator.ReceiverOptions{Guest: guestName, Disks: map[string]*undo.Disk{diskName: disk}}, quiet)
	defer receiver.Stop()
	identity, err := peer.Open(orders.Identity)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &peer.Server{
		Self: identity.Node, Gate: peer.NodeGate{Identity: func() *peer.Identity { return identity }, Member: func(string) error { return nil }},
		Handlers: map[string]peer.Handler{purpose: func(ctx context.Context, conn *wire.Conn, _ wire.Hello) { _ = receiver.Serve(ctx, conn) }},
		Log:      quiet,
	}
	if err := say(listener.Addr().String()); err != nil {
		return err
	}
	committing := make(chan error, 1)
	go func() { committing <- commit(ctx, receiver, disk) }()
	return errors.Join(server.Serve(ctx, listener), <-committing)
}

// commit does for each marker what a checkpoint's commit does with the disks.
func commit(ctx context.Context, receiver *replicator.Receiver, disk *undo.Disk) error {
	for newest := uint64(0); ; {
		err := receiver.WaitMark(ctx, newest+1)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, replicator.ErrLinkLost): // between two turns
			time.Sleep(20 * time.Millisecond)
			continue
		case err != nil:
			return err
		}
		marks := disk.Marks()
		newest = marks[len(marks)-1]
		if err := errors.Join(receiver.Sync(), disk.Drop(newest)); err != nil {
			return err
		}
	}
}
