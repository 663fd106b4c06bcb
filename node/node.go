package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/lease"
	"vmctl/node/notify"
	"vmctl/store"
	"vmctl/vm"
	"vmctl/vm/guard"
	"vmctl/vm/headroom"
)

// Node is a running agent.
type Node struct {
	config      Config
	log         *slog.Logger
	host        vm.Host
	memory      vm.Size // of the host, all of it
	qemu        string  // version, for people
	accelReason string  // why the accelerator is what it is; empty: the user chose it
	started     time.Time
	self        *self
	exe         string // this program, to run guards of

	db        *store.DB
	notifier  *notify.Notifier
	journal   *journal
	alarms    *alarms
	neighbour *neighbour
	members   *membership
	exchange  *exchange
	decider   *decider
	links     *lease.Links
	guests    *guests
	budget    *headroom.Budget
	contact   contact
	keeping   *keeping
	recoverer *recoverer
	tasks     sync.WaitGroup
	launcher  guard.Launcher
	creating  sync.Mutex // one guest is made at a time
	leaving   sync.Mutex // held while this node is emptied
	endOnce   sync.Once
	kept      keptPolicy
	trials    *trials
	left      chan struct{} // closed when the agent shall end because the node was shut down
}

// Run is the agent, from start to stop. ready is called once it serves. Guests
// run on when it ends.
func Run(ctx context.Context, config Config, ready func(*Node)) (err error) {
	if err := config.check(); err != nil {
		return err
	}
	if err := checkRAMDir(config.RAMDir, config.Log); err != nil {
		return err
	}
	if err := makeDir("state-dir", config.StateDir); err != nil {
		return err
	}
	db, err := store.Open(filepath.Join(config.StateDir, "vmctl.db"), store.Options{Schema: schema, Log: config.Log})
	if errors.Is(err, store.ErrLocked) {
		return api.Errorf(api.Conflict, "start the agent: %v", err)
	}
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// Now that this agent is the one of its state: one that is refused leaves nothing.
	if err := errors.Join(makeDir("runtime-dir", config.RuntimeDir), makeDir("ram-dir", config.RAMDir)); err != nil {
		return err
	}
	n := &Node{config: config, log: config.Log, db: db, started: time.Now(), left: make(chan struct{})}
	if n.kept, err = config.keptPolicy(); err != nil {
		return err
	}
	if err := n.load(ctx); err != nil {
		return err
	}
	return n.serve(ctx, ready)
}

// load reads what is stored and builds the rooms, in order of need.
func (n *Node) load(ctx context.Context) (err error) {
	if n.exe, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if n.self, err = countStart(n.db, n.config.Name); err != nil {
		return err
	}
	if n.notifier, err = notify.New(n.config.Notify, n.log); err != nil {
		return api.Errorf(api.Usage, "start the agent: %v", err).WithHint("See `notify` in the config file.")
	}
	if err := n.findHost(ctx); err != nil {
		return err
	}
	n.journal = newJournal(n.db, n.config.Name, n.log, n.notifier.Notify)
	n.alarms, n.trials = newAlarms(n.journal), n.openTrials()
	if err := n.alarms.load(n.db); err != nil {
		return err
	}
	if err := n.resumeNotifications(); err != nil {
		return err
	}
	n.neighbour = &neighbour{db: n.db, alarms: n.alarms, journal: n.journal, log: n.log}
	n.members = &membership{db: n.db, self: n.config.Name, addr: n.config.Advertise}
	if err := n.members.load(); err != nil {
		return err
	}
	if other, ok := n.members.peer(); ok {
		if err := n.neighbour.load(other.Name); err != nil {
			return err
		}
	}
	n.decider = newDecider()
	n.recoverer = newRecoverer(n)
	n.guests = newGuests(n)
	n.keeping = newKeeping(n)
	n.exchange = &exchange{
		db: n.db, members: n.members, changed: n.guests.changed, self: n.describeSelf,
		tell:  func() (nodeState, map[string][]keptDisks) { return n.state(), n.keptHere() },
		heard: n.heard,
		log:   n.log, kick: make(chan struct{}, 1), settled: map[string]time.Time{},
	}
	if err := n.guests.load(); err != nil {
		return err
	}
	return n.loadCore()
}

// loadCore makes the lease core of what was persisted.
func (n *Node) loadCore() error {
	setup := ha.Setup{Self: ha.NodeID(n.config.Name), Boot: n.self.current().Boot, Timing: ha.DefaultTiming(), Start: ha.Time(guard.Now())}
	err := n.db.View(func(tx *store.Tx) error {
		shared, err := sharedTable.Get(tx, only)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		setup.Cluster = shared.Value
		rows, err := leaseTable.List(tx, "")
		for _, row := range rows {
			setup.Records = append(setup.Records, row.Value)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("load the leases: %w", err)
	}
	d := n.decider
	if d.core, err = ha.NewCore(setup); err != nil {
		return err
	}
	d.db, d.tick, d.log, d.guests = n.db, setup.Timing.Tick, n.log, n.guests
	d.shared = func(ha.Cluster) { n.exchange.soon() }
	d.notice = n.notice
	for _, record := range setup.Records {
		n.guests.owned(record)
	}
	for _, g := range n.guests.list() {
		g.locked(func() {}) // all are known before one is started
	}
	return nil
}

// serve runs everything until ctx ends, then ends it in reverse. If the host is
// going down, the guests are given away or stopped before that.
func (n *Node) serve(ctx context.Context, ready func(*Node)) (err error) {
	api, err := n.listenAPI()
	if err != nil {
		return err
	}
	defer api.Close()
	var peers net.Listener
	if n.config.Listen != "" {
		if peers, err = net.Listen("tcp", n.config.Listen); err != nil {
			return listenError(err)
		}
		defer peers.Close()
	}

	// Notifications and the journal outlive everything that records events.
	asked, ctx := ctx, context.WithoutCancel(ctx)
	defer n.journal.flushHeard()
	defer start(ctx, n.notifier.Run)()
	defer n.lastWords()
	defer start(ctx, n.journal.keep)()
	ctx, cancel := context.WithCancel(ctx)
	defer n.tasks.Wait()
	defer cancel()
	n.runTasks(ctx, peers)
	web := &http.Server{Handler: n.backend().Handler(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	served := make(chan error, 1)
	go func() { served <- web.Serve(api) }()
	if n.accelReason != "" && n.host.Accel == vm.AccelTCG {
		n.journal.record(warning, "no-kvm", "", "guests run by emulation, slowly: "+n.accelReason)
	}
	n.journal.record(info, "agent-started", "", fmt.Sprintf("agent %s started, QEMU %s, %s", n.config.Version, n.qemu, n.host.Accel))
	n.guests.settle(asked, adoptBound)
	ready(n)
	word := "agent is stopping; guests run on"
	select {
	case <-asked.Done():
		if n.hostStops() {
			word = "agent is stopping with its host"
		}
	case <-n.left:
		word = "agent is stopping: this node was shut down"
		n.stopService()
		endCalls(web)
	case err = <-n.decider.fatal:
	case err = <-served:
		served <- nil
	}
	cancel()
	_ = web.Close()
	<-served
	n.journal.record(info, "agent-stopping", "", word)
	return err
}

// runTasks starts what runs until ctx ends.
func (n *Node) runTasks(ctx context.Context, peers net.Listener) {
	n.links = lease.New(ctx, n.members.dialVoter, n.deliver, n.linkChanged, n.log)
	n.decider.send = n.links.Send
	n.decider.fence = func(order ha.Fence) { n.tasks.Go(func() { n.switchOff(ctx, order) }) }
	n.tasks.Go(n.links.Wait)
	n.tasks.Go(func() { n.decider.run(ctx) })
	n.tasks.Go(func() { n.exchange.run(ctx) })
	n.tasks.Go(func() { n.keeping.run(ctx) })
	n.tasks.Go(func() { n.guests.run(ctx) })
	n.tasks.Go(func() { n.watchFence(ctx) })
	n.tasks.Go(func() { n.recoverer.run(ctx) })
	n.tasks.Go(func() { n.alarms.expire(ctx) })
	n.tasks.Go(func() { n.watchFit(ctx) })
	n.tasks.Go(func() { n.watchRoom(ctx) })
	n.tasks.Go(func() { n.watchSpace(ctx) })
	n.tasks.Go(func() { n.keepLogsShort(ctx) })
	n.tasks.Go(func() { n.keepPruning(ctx) })
	n.tasks.Go(func() { n.verifying(ctx) })
	if peers == nil {
		return
	}
	server := n.peerServer()
	n.tasks.Go(func() {
		if err := server.Serve(ctx, peers); err != nil {
			n.alarms.set("peer-listener", "", true, "the peer cannot reach this node: "+err.Error())
		}
	})
}

// adoptBound is how long a start waits for guests to be adopted before it says
// that it is ready.
const adoptBound = 3 * time.Second

// start runs a task that outlives the others and returns the function that
// ends it.
func start(ctx context.Context, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); run(ctx) }()
	return func() { cancel(); <-done }
}

// linkChanged tells the core of the lease link to a voter.
func (n *Node) linkChanged(to ha.NodeID, up bool) {
	if other, ok := n.members.peer(); ok && other.Name == string(to) {
		if up {
			n.exchange.soon()
		}
		n.decider.tell(ha.PeerLink{Up: up})
		return
	}
	n.decider.tell(ha.WitnessLink{Up: up})
}

// Socket is where the API listens.
func (n *Node) Socket() string { return n.config.Socket() }

// Healthy says whether the lease core answers within bound.
func (n *Node) Healthy(ctx context.Context, bound time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return n.decider.inspect(ctx, func(*ha.Core) {}) == nil
}

// Name is this node's.
func (n *Node) Name() string { return n.config.Name }
