package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"vmctl/node/e2e/lab"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/snapshot"
	"vmctl/snapshot/nbd"
	"vmctl/snapshot/replicator"
	"vmctl/vm/qmp"
)

// purpose is that of the connection between our two sides.
const purpose = "bench-disks"

// interval is the time between two checkpoints, as a guest has it by default.
const interval = 500 * time.Millisecond

// ownerOrders say what the owner's side has to do.
type ownerOrders struct {
	Monitor, Target, Export string
	Size                    int64
	Identity                peer.Sealed
	Peer                    peer.Remote
	Profile                 string
}

// owner is what an agent does for the disk of a guest that it owns.
func owner(ctx context.Context) (err error) {
	var orders ownerOrders
	told, err := takeOrders(ctx, &orders)
	if err != nil {
		return err
	}
	stop, err := profileTo(orders.Profile, roleOwner)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	monitor, err := qmp.Dial(ctx, orders.Monitor, nil)
	if err != nil {
		return err
	}
	defer monitor.Close()
	mirror := &snapshot.Mirror{Monitor: monitor, Target: orders.Target, Export: orders.Export,
		Disks: []snapshot.MirrorDisk{{Name: diskName, Size: orders.Size, Top: "top0", Base: "d0"}}}
	r, err := replicator.New(replicator.Options{
		Guest: guestName, Epoch: 1, Outdated: true,
		Disks: []replicator.Disk{{Name: diskName, Size: orders.Size, Socket: orders.Target,
			Source: func(ctx context.Context) (replicator.Source, error) { return nbd.Dial(ctx, orders.Export, diskName) }}},
		Degrade: func(context.Context) error { return nil }, InSync: func(context.Context) error { return nil },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return serveMirror(ctx, told, r, mirror, orders)
}

func serveMirror(ctx, told context.Context, r *replicator.Replicator, mirror *snapshot.Mirror, orders ownerOrders) error {
	listeners, err := r.Listen()
	if err != nil {
		return err
	}
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	served, parted := make(chan error, 1), make(chan error, 1)
	go func() { served <- r.Serve(serving, listeners) }()
	if err := mirror.Start(ctx); err != nil {
		return err
	}
	identity, err := peer.Open(orders.Identity)
	if err != nil {
		return err
	}
	conn, err := identity.Dial(ctx, orders.Peer, purpose, "", wire.Options{WriteTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	go func() { parted <- r.Attach(serving, conn, replicator.Peer{}) }()
	err = lab.Eventually(ctx, time.Minute, func() error {
		if r.State().Phase != replicator.InSync {
			return errors.New("the replica does not become complete")
		}
		return nil
	})
	if err == nil {
		err = say("in sync")
	}
	if err == nil {
		err = mark(told, r)
	}
	err = errors.Join(err, mirror.Stop(ctx))
	cancel()
	<-parted // says that it was cancelled
	return errors.Join(err, <-served)
}

// mark sets the markers of checkpoints until ctx ends.
func mark(ctx context.Context, r *replicator.Replicator) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := r.Mark(ctx, uint64(time.Now().UnixNano())); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// profileTo begins a CPU profile, if dir says where to.
func profileTo(dir, role string) (stop func() error, err error) {
	if dir == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(filepath.Join(dir, role+".pprof"))
	if err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, pprof.StartCPUProfile(file)
}
