package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/snapshot"
)

// Purposes of the connections that carry a guest to its replica.
const (
	purposeDisks      = "disks"
	purposeCheckpoint = "checkpoint"
)

// openRequest is the owner's first word on a replication stream.
type openRequest struct {
	Epoch uint64     `msgpack:"epoch"`
	Disks []diskSize `msgpack:"disks"`
	// Grow: the disks are to be made that large and no stream follows.
	Grow bool `msgpack:"grow,omitempty"`
	// From is the moment of this node at which it gave the guest to this owner, all
	// of whose disks have gone on from there. The version before does not say.
	From *moment `msgpack:"from,omitempty"`
}

// openAnswer is the standby's. Before, it said nothing.
type openAnswer struct {
	Replica []byte `msgpack:"replica"`         // which one it is
	Holds   bool   `msgpack:"holds,omitempty"` // it keeps what it has during a resync
}

type diskSize struct {
	Name string `msgpack:"name"`
	Size int64  `msgpack:"size"`
}

// candidateEvery is how often the core is told where the replica stands.
const candidateEvery = 200 * time.Millisecond

// standBy is the role of the node that does not own the guest: the replica is
// served by the connections that come in; here it is opened after a start of
// the agent, and the core told how good it is.
func (g *guest) standBy(ctx context.Context) {
	role, end := g.role(ctx, false)
	defer end()
	g.endForeign(role)
	g.found()
	if _, err := g.openStandby(role); err != nil && !errors.Is(err, errNoReplica) {
		g.log.Error("the replica cannot be opened", "error", err)
	}
	defer start(role, g.keepSpare)()
	ticker := time.NewTicker(candidateEvery)
	defer ticker.Stop()
	told := ha.CandidateState{}
	for {
		if state := g.candidate(role); state != told {
			told = state
			g.n.decider.tell(state)
		}
		g.lookBack(role)
		select {
		case <-role.Done():
			return
		case <-ticker.C:
		}
	}
}

// candidate says whether the replica could be resumed now.
func (g *guest) candidate(ctx context.Context) ha.CandidateState {
	state := ha.CandidateState{Guest: ha.GuestID(g.id)}
	g.mu.Lock()
	standby, here, level := g.standby, g.here, g.record.Spec.Protection.Level
	g.mu.Unlock()
	if standby == nil {
		return state
	}
	status, err := standby.Status(ctx)
	if err != nil {
		return state
	}
	if level == string(ha.LevelRestart) {
		// The owner says with its outdated flag whether the disks are complete;
		// after a boot of this host what was not flushed is lost.
		state.Ready, state.Epoch = here.Prepared != 0 && here.BootID == bootID(), here.Prepared
		return state
	}
	state.Ready, state.Epoch, state.Sequence = status.Complete, status.Epoch, status.Sequence
	g.mu.Lock()
	g.status.peerSeq, g.status.image = status.Sequence, status.Bytes
	g.mu.Unlock()
	return state
}

var errNoReplica = errors.New("this node holds no replica of the guest")

// openStandby opens the replica that is here.
func (g *guest) openStandby(ctx context.Context) (*snapshot.Standby, error) {
	g.replica.Lock()
	defer g.replica.Unlock()
	return g.openStandbyLocked(ctx)
}

func (g *guest) openStandbyLocked(ctx context.Context) (*snapshot.Standby, error) {
	g.mu.Lock()
	standby, here := g.standby, g.here
	g.mu.Unlock()
	if standby != nil {
		return standby, nil
	}
	if here.Prepared == 0 {
		return nil, errNoReplica
	}
	config := snapshot.StandbyConfig{
		UUID: g.id, Epoch: here.Prepared, Dir: g.replicaDir(), RAMDir: g.n.config.RAMDir,
		MaxRAM: func() int64 { return int64(g.spec().MemoryFile()) }, Room: g.roomForImage, BootID: bootID(), Log: g.log,
		Silent: func() time.Time { return g.n.contact.silent(time.Now()) },
		Noted:  func(kind, text string) { g.n.journal.record(warning, kind, g.name(), text) },
	}
	for i, d := range here.Disks {
		image := snapshot.DiskImage{Name: d.Name, Path: g.replicaDisk(d.Name), Size: d.Size}
		if here.Was != nil {
			image.Was = here.Was[i].Size
		}
		config.Disks = append(config.Disks, image)
	}
	standby, err := snapshot.OpenStandby(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := g.sayLeft(here, standby); err != nil {
		return nil, errors.Join(err, standby.Close())
	}
	g.locked(func() { g.standby = standby })
	g.grown()
	return standby, nil
}

func (g *guest) replicaDir() string { return filepath.Join(g.layout.State, "replica") }

func (g *guest) replicaDisk(name string) string {
	return filepath.Join(g.layout.Disks(), name+".raw")
}

// closeStandby lets go of the replica; its streams end.
func (g *guest) closeStandby() {
	g.replica.Lock()
	defer g.replica.Unlock()
	g.closeStandbyLocked()
}

func (g *guest) closeStandbyLocked() {
	g.mu.Lock()
	standby := g.standby
	g.mu.Unlock()
	if standby == nil {
		return
	}
	if err := standby.Close(); err != nil {
		g.log.Warn("the replica was not closed cleanly", "error", err)
	}
	g.locked(func() { g.standby = nil })
}

// closeStandbyUnlessTaking keeps a replica that is about to be resumed.
func (g *guest) closeStandbyUnlessTaking() {
	g.mu.Lock()
	taking := g.taking
	g.mu.Unlock()
	if taking == nil {
		g.endSpare("the guest is this node's")
		g.closeStandby()
	}
}

// serveDisks takes the owner's disk writes.
func (gs *guests) serveDisks(ctx context.Context, conn *wire.Conn, hello wire.Hello) {
	gs.serveReplica(ctx, conn, hello, (*snapshot.Standby).ServeDisks)
}

// serveCheckpoints takes the owner's checkpoints.
func (gs *guests) serveCheckpoints(ctx context.Context, conn *wire.Conn, hello wire.Hello) {
	gs.serveReplica(ctx, conn, hello, (*snapshot.Standby).ServeCheckpoints)
}

func (gs *guests) serveReplica(ctx context.Context, conn *wire.Conn, hello wire.Hello, serve func(*snapshot.Standby, context.Context, snapshot.Stream) error) {
	conn.SetTimeouts(0, 10*time.Second)
	var request openRequest
	var standby *snapshot.Standby
	err := peer.Answer(conn, &request, func() (any, error) {
		g := gs.get(hello.Guest)
		if g == nil {
			gs.n.exchange.soon()
			return nil, &wire.Refused{Code: string(api.NotFound), Message: "the guest is not known here yet"}
		}
		var err error
		if standby, err = g.prepare(ctx, ha.NodeID(hello.Node), request); err != nil {
			return nil, err
		}
		if hello.Purpose != purposeDisks || request.Grow {
			return openAnswer{}, nil
		}
		says, err := standby.Says()
		return openAnswer{Replica: says.Replica, Holds: says.Holds}, err
	})
	if err == nil && !request.Grow {
		err = serve(standby, ctx, conn)
	}
	gs.n.log.Info("replication stream ended", "vm", gs.nameOf(ha.GuestID(hello.Guest)), "purpose", hello.Purpose, "reason", err)
}

// prepare makes the replica ready for an owner's epoch.
func (g *guest) prepare(ctx context.Context, from ha.NodeID, request openRequest) (*snapshot.Standby, error) {
	wait, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// The heartbeat that tells the new epoch may come a little later.
	if err := g.await(wait, func() bool { return g.owner == from && g.epoch >= request.Epoch }); err != nil {
		return nil, &wire.Refused{Code: string(api.Conflict), Message: fmt.Sprintf("%s at epoch %d is not the owner as this node knows it", from, request.Epoch)}
	}
	g.replica.Lock()
	defer g.replica.Unlock()
	g.mu.Lock()
	epoch, here, busy := g.epoch, g.here, g.machine != nil
	g.mu.Unlock()
	switch {
	case epoch != request.Epoch:
		return nil, &wire.Refused{Code: string(api.Conflict), Message: fmt.Sprintf("epoch %d is over, it is %d", request.Epoch, epoch)}
	case busy:
		return nil, &wire.Refused{Code: string(api.Conflict), Message: "the former owner's process has not ended yet"}
	case here.Prepared == request.Epoch && slices.Equal(here.Disks, request.Disks):
		if here.BootID != bootID() && !request.Grow {
			if err := g.writePlace(func(p *placeRecord) { p.BootID = bootID() }); err != nil {
				return nil, err
			}
		}
		return g.openStandbyLocked(ctx)
	case grows(here, request):
		return g.growReplica(ctx, here, request)
	case request.Grow:
		return nil, &wire.Refused{Code: string(api.Conflict), Message: "this node has no replica of that epoch that could grow"}
	}
	left := g.leftAs(here, request)
	if err := g.makeRoom(here, request, left != nil); err != nil {
		return nil, err
	}
	err := g.writePlace(func(p *placeRecord) {
		*p = placeRecord{Replica: true, Prepared: request.Epoch, Disks: request.Disks, Left: left, LeftAt: here.LeftAt, BootID: bootID()}
	})
	if err != nil {
		return nil, err
	}
	return g.openStandbyLocked(ctx)
}

// bootID tells this boot of the host from the next.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
