package node

import (
	"errors"
	"time"

	"vmctl/ha"
	"vmctl/node/peer"
	"vmctl/store"
	"vmctl/vm"
)

// guestRecord is what both nodes know of a guest: the owner writes it and
// sends it to the peer. Who owns it stands in the lease core's own record.
type guestRecord struct {
	Spec    vm.Spec   `msgpack:"spec"`
	Epoch   uint64    `msgpack:"epoch"`   // of the owner that wrote it
	Version uint64    `msgpack:"version"` // rises with every change within the epoch
	Run     bool      `msgpack:"run"`     // the user wants it to run
	Removed bool      `msgpack:"removed"` // kept until the peer knows
	Created time.Time `msgpack:"created"`
	// Paused is what the user has said last of the guest that runs: a takeover may be
	// from a checkpoint that is older. nil: nothing, or an agent that keeps no such word
	// wrote this; then the checkpoint tells.
	Paused *bool `msgpack:"paused,omitempty"`
}

// newerThan says which of two versions of a record stands.
func (r guestRecord) newerThan(o guestRecord) bool {
	return r.Epoch > o.Epoch || r.Epoch == o.Epoch && r.Version > o.Version
}

// placeRecord is what only this node knows: what the files here are.
type placeRecord struct {
	// Replica: the disks are (or were, before this node took over) a replica's,
	// raw and in the guest's own directory, whatever the spec says.
	Replica bool `msgpack:"replica"`
	// Epoch is the one under which this node last ran the guest from these
	// disks; 0: never. A replica of a later epoch must not be mixed with them.
	Epoch uint64 `msgpack:"epoch"`
	// Sizes are those of the guest's disks when it last ran protected here.
	Sizes []diskSize `msgpack:"sizes"`
	// From is the moment of the owner before this one at which these disks were
	// exactly as he left them; nil: they may lack something of his.
	From *moment `msgpack:"from,omitempty"`
	// Left is when this node gave the guest away by its own will; since then nobody
	// has written to its disks here. nil: it did not, or they were written to.
	Left *moment `msgpack:"left,omitempty"`
	// LeftAt is the time of Left, if there is one.
	LeftAt time.Time `msgpack:"left_at,omitempty"`
	// GaveUp says why the guest is not started any more; empty: it is.
	GaveUp string `msgpack:"gave_up,omitempty"`
	// Resuming is set while the guest is being resumed under Epoch: the run state
	// that its checkpoint has. A process found then may have been left halfway.
	Resuming string `msgpack:"resuming,omitempty"`
	// Prepared is the owner's epoch the replica's disks were made ready for.
	Prepared uint64     `msgpack:"prepared"`
	Disks    []diskSize `msgpack:"disks"` // of the replica
	// Was are the sizes that the replica's images may still have, not all of which
	// are made as large as Disks says yet; nil: they are.
	Was    []diskSize `msgpack:"was,omitempty"`
	BootID string     `msgpack:"boot_id"` // of this host, when the replica was last joined
}

// clusterRecord is who belongs to the cluster and where they are. Mode and
// witness in force are the lease core's business (sharedTable).
type clusterRecord struct {
	Identity  peer.Sealed   `msgpack:"identity"`
	Members   []memberInfo  `msgpack:"members"`
	Witnesses []witnessInfo `msgpack:"witnesses"` // every one that may still be asked, newest last
	// Joins counts the nodes that were admitted, by whichever node: one that replaces a
	// lost one under its name is told from it by that.
	Joins uint64 `msgpack:"joins,omitempty"`
}

type memberInfo struct {
	Name string `msgpack:"name"`
	Addr string `msgpack:"addr"`
}

type witnessInfo struct {
	ID          string `msgpack:"id"` // new with every new state directory
	Name        string `msgpack:"name"`
	Addr        string `msgpack:"addr"`
	Fingerprint []byte `msgpack:"fingerprint"`
}

// tokenRecord is a join token that was given out.
type tokenRecord struct {
	Expires time.Time `msgpack:"expires"`
	UsedBy  string    `msgpack:"used_by"`
}

// nodeRecord holds what is the node's own.
type nodeRecord struct {
	Name        string `msgpack:"name"`
	Boot        uint64 `msgpack:"boot"` // counts starts of the agent
	Maintenance bool   `msgpack:"maintenance"`
	Down        bool   `msgpack:"down"`    // shut down on purpose; until the next start
	Version     uint64 `msgpack:"version"` // rises with every change of the two
}

var (
	guestTable   = store.NewTable[guestRecord]("guests")
	placeTable   = store.NewTable[placeRecord]("places")
	leaseTable   = store.NewTable[ha.Record]("leases")
	sharedTable  = store.NewTable[ha.Cluster]("shared")
	clusterTable = store.NewTable[clusterRecord]("cluster")
	tokenTable   = store.NewTable[tokenRecord]("tokens")
	peerTable    = store.NewTable[nodeState]("peers")
	alarmTable   = store.NewTable[alarmRecord]("alarms")
	nodeTable    = store.NewTable[nodeRecord]("node")
	verifyTable  = store.NewTable[verifyRecord]("verified")
	heardTable   = store.NewTable[heardRecord]("heard")
	eventLog     = store.NewLog[eventRecord]("events")
)

// only is the key of a table with one row.
const only = "this"

// schema lists the database's migrations, oldest first. The first has nothing
// to do: tables are made when first written.
var schema = []store.Migration{}

// deleteIfThere removes a row that may not exist.
func deleteIfThere[T any](table store.Table[T], tx *store.Tx, key string) error {
	err := table.Delete(tx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
