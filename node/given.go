package node

import (
	"errors"
	"fmt"
	"os"
	"time"

	"vmctl/snapshot"
	"vmctl/snapshot/replica"
	"vmctl/vm"
)

// A guest that is handed over leaves disks behind that the new owner goes on
// with, byte for byte. They become its replica where they are: nothing is kept
// twice, and only what was written since goes over the link. For that both sides
// have to name the same moment. The former owner has it from the handover, after
// which nothing was written here; the new one from what he resumed or booted. One
// that had to go back to an older checkpoint names another.

// moment is when an owner let go of a guest.
type moment struct {
	Epoch    uint64 `msgpack:"epoch"`
	Sequence uint64 `msgpack:"sequence"` // of the last checkpoint; 0: it was shut down
}

func momentOf(c replica.Checkpoint) *moment { return &moment{Epoch: c.From, Sequence: c.Sequence} }

// left notes that the guest, which stands still or is off, was given away. If it is
// a replica's place by now, the new owner was faster.
func (g *guest) left(at moment) {
	err := g.syncDisks()
	if err == nil {
		err = g.writePlace(func(p *placeRecord) {
			if p.Epoch == at.Epoch {
				p.Left, p.LeftAt = &at, time.Now()
			}
		})
	}
	if err != nil {
		g.log.Warn("that the guest was handed over is not stored; its disks here are kept when it is replicated back", "error", err)
	}
}

// syncDisks makes what the guest has written durable, as a moment's disks are.
func (g *guest) syncDisks() (err error) {
	g.mu.Lock()
	onReplica := g.here.Replica
	g.mu.Unlock()
	for _, d := range g.spec().Disks {
		file, openErr := os.Open(g.layout.Disk(d, onReplica).Path)
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		err = errors.Join(err, file.Sync(), file.Close())
	}
	return err
}

// leftAs is the moment at which this node left the disks that are to become the
// replica, if they can as they are.
func (g *guest) leftAs(here placeRecord, request openRequest) *moment {
	if here.Left == nil || request.From == nil || *here.Left != *request.From || here.Left.Epoch != here.Epoch {
		return nil
	}
	for _, d := range request.Disks {
		if !g.isReplicas(d, here.Replica) {
			return nil
		}
	}
	return here.Left
}

// isReplicas says whether a disk of the guest is what the replica's would be.
func (g *guest) isReplicas(d diskSize, replica bool) bool {
	info, err := os.Lstat(g.replicaDisk(d.Name))
	if err != nil || !info.Mode().IsRegular() || info.Size() != d.Size {
		return false
	}
	for _, of := range g.spec().Disks {
		if of.Name == d.Name {
			return g.layout.Disk(of, replica) == (vm.DiskFile{Path: g.replicaDisk(d.Name), Format: vm.FormatRaw})
		}
	}
	return false
}

// sayLeft keeps with the replica that its disks are as the guest left them, so
// that they stay what one could go back to while they are brought up to date. It
// is said once, before anything is written to them.
func (g *guest) sayLeft(here placeRecord, standby *snapshot.Standby) error {
	if here.Left == nil {
		return nil
	}
	of := here.LeftAt
	if of.IsZero() { // noted by an agent that did not say when
		of = time.Now()
	}
	if err := standby.SayWhole(of); err != nil {
		return fmt.Errorf("make a replica of the disks that the guest left here: %w", err)
	}
	return g.writePlace(func(p *placeRecord) { p.Left = nil })
}
