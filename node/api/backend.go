package api

import (
	"context"
	"io"
	"iter"
	"net/http"
	"time"

	"vmctl/vm"
)

// Machines makes, shows and removes guests.
type Machines interface {
	// Create and Change take force for the user's word that it be done although
	// one node alone could not hold all guests then.
	Create(ctx context.Context, spec vm.Spec, force bool) (VM, error)
	Change(ctx context.Context, name string, change []byte, force bool) (VM, error)
	List(ctx context.Context) ([]VM, error)
	Show(ctx context.Context, name string) (VM, error)
	Remove(ctx context.Context, name string, force bool) error
	// RemoveKept removes disks that a former owner wrote last, on whichever node
	// they are, or only here.
	RemoveKept(ctx context.Context, name string, epoch uint64, here bool) error
}

// Verb is something done to a guest.
type Verb string

// The verbs. Stop asks the guest and ends it after a bound; kill ends it at
// once.
const (
	Start   Verb = "start"
	Stop    Verb = "stop"
	Kill    Verb = "kill"
	Reset   Verb = "reset"
	Pause   Verb = "pause"
	Unpause Verb = "unpause"
)

// Option says how a verb is done.
type Option struct {
	Bound time.Duration // of a stop, before the guest is ended; 0: the default
	Force bool          // start it although one node alone could not hold all guests then
}

// Operator runs guests.
type Operator interface {
	Act(ctx context.Context, name string, verb Verb, option Option) (VM, error)
	Console(ctx context.Context, name string) (io.ReadWriteCloser, error)
	SerialLog(ctx context.Context, name string) (path string, err error)
	Promote(ctx context.Context, name string, confirmPeerOff bool) (VM, error)
}

// Clusters makes and changes the cluster.
type Clusters interface {
	Init(ctx context.Context, name string) (Cluster, error)
	NewToken(ctx context.Context) (Token, error)
	Join(ctx context.Context, addr, token string) (Cluster, error)
	Leave(ctx context.Context) error
	Cluster(ctx context.Context) (Cluster, error)
}

// Witnesses adds and removes the third voter.
type Witnesses interface {
	AddWitness(ctx context.Context, addr, token string) (Witness, error)
	RemoveWitness(ctx context.Context) error
}

// Thirds says who the third vote is, where that is no witness.
type Thirds interface {
	SetMode(ctx context.Context, change ModeChange) (Cluster, error)
	CheckFence(ctx context.Context) (FenceCheck, error)
}

// Observer tells what is going on.
type Observer interface {
	Status(ctx context.Context) (Status, error)
	HA(ctx context.Context) (HAStatus, error)
	Why(ctx context.Context, name string) (Why, error)
	// Events yields those after since, then, if follow, new ones until ctx ends.
	Events(ctx context.Context, filter EventFilter) iter.Seq2[Event, error]
}

// Hosts puts the node in and out of service.
type Hosts interface {
	Maintenance(ctx context.Context, on bool) (Maintenance, error)
	// Shutdown empties the node; then its agent ends.
	Shutdown(ctx context.Context) (Shutdown, error)
	// NotifyTest sends a test notification to every target.
	NotifyTest(ctx context.Context) ([]NotifyTest, error)
}

// EventFilter selects events.
type EventFilter struct {
	VM     string
	Since  time.Time
	Follow bool
}

// Router says where a request about a guest must go: nil for here, a transport
// to the peer for a guest that the peer owns, an error if that is unreachable.
type Router interface {
	Route(name string) (http.RoundTripper, error)
}
