package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/snapshot"
	"vmctl/snapshot/replica"
	"vmctl/vm"
	"vmctl/vm/guard"
	"vmctl/vm/qmp"
)

// machine is the QEMU of a guest on this node and the connections to it. It is
// what snapshot calls a Machine.
type machine struct {
	*vm.Guest
	guard     *guard.Client
	monitor   *qmp.Client
	epoch     uint64
	adopted   bool                // it ran before this agent
	disks     []diskSize          // as the guest sees them
	protector *snapshot.Protector // guarded by the guest's lock
	stopLease func()

	saving sync.Mutex
	state  *qmp.StateFile // nil before the first checkpoint
}

// startMachine runs the guest from its disks.
func startMachine(ctx context.Context, g *guest, epoch uint64, options vm.Options) (*machine, error) {
	request, err := g.request(epoch, options)
	if err != nil {
		return nil, err
	}
	m := &machine{epoch: epoch}
	l := launch{started: func(c *guard.Client) { m.stopLease = g.keepLease(c, epoch) }}
	if m.Guest, err = vm.Start(ctx, g.n.platform(&l), request); err != nil {
		m.release()
		return nil, err
	}
	m.guard, m.monitor = l.guard, l.monitor
	return m, nil
}

// release ends what keeps the lease.
func (m *machine) release() {
	if m.stopLease != nil {
		m.stopLease()
	}
}

// request describes a start under the present lease.
func (g *guest) request(epoch uint64, options vm.Options) (vm.Request, error) {
	deadline, leased := g.leased()
	if !leased {
		return vm.Request{}, errors.New("there is no lease: neither peer nor witness has confirmed that this node may run the guest")
	}
	var used []string
	for path := range g.n.guests.usedDisks(g.id) {
		used = append(used, path)
	}
	return vm.Request{
		Spec: g.spec(), Layout: g.layout, Host: g.n.host, Options: options,
		UsedDisks: used, Epoch: epoch, DeadlineNS: deadline,
	}, nil
}

// resumeMachine loads a checkpoint into a new QEMU and lets it run if it ran.
// activate is called before that: from then on the checkpoint is used up.
func resumeMachine(ctx context.Context, g *guest, epoch uint64, from replica.Checkpoint, activate func(context.Context) (string, error)) (_ *machine, err error) {
	request, err := g.request(epoch, vm.Options{Incoming: true, Replica: true})
	if err != nil {
		return nil, err
	}
	request.Layout.RAMFile = from.RAMPath
	// Until it is claimed it waits for its state and executes nothing.
	request.Epoch, request.DeadlineNS = epoch-1, guard.Forever
	var l launch
	m := &machine{epoch: epoch}
	if m.Guest, err = vm.Start(ctx, g.n.platform(&l), request); err != nil {
		return nil, err
	}
	m.guard, m.monitor = l.guard, l.monitor
	defer func() {
		if err != nil {
			m.killNow()
			<-m.ended()
			m.close()
		}
	}()
	if err := qmp.LoadDeviceState(ctx, l.monitor, bytes.NewReader(from.Blob)); err != nil {
		return nil, fmt.Errorf("load the device state: %w", err)
	}
	deadline, leased := g.leased()
	if !leased {
		return nil, errors.New("the lease ran out while the guest was being resumed")
	}
	if err := l.guard.Claim(ctx, epoch, deadline); err != nil {
		return nil, fmt.Errorf("put the guest under its lease: %w", err)
	}
	m.stopLease = g.keepLease(l.guard, epoch)
	if _, err := activate(ctx); err != nil {
		return nil, err
	}
	if from.RunState == "running" {
		if err := l.monitor.Execute(ctx, "cont", nil, nil); err != nil {
			return nil, fmt.Errorf("let the guest go on: %w", err)
		}
	}
	if err := qmp.AnnounceSelf(ctx, l.monitor); err != nil {
		g.log.Info("the guest's place was not announced to the network", "error", err)
	}
	return m, nil
}

// adopt takes over the guest's process of an earlier agent; nil if there is
// none, or if what there was has ended.
func (g *guest) adopt(ctx context.Context) (*machine, error) {
	client, err := guard.Attach(ctx, g.layout.GuardConfig())
	if errors.Is(err, guard.ErrGone) || errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("adopt the guest's process: %w", err)
	}
	status, err := client.Status(ctx)
	g.mu.Lock()
	epoch := g.epoch
	g.mu.Unlock()
	if err == nil && (status.Epoch != epoch || status.Standby) {
		err = fmt.Errorf("it runs under epoch %d, the guest is at %d", status.Epoch, epoch)
	}
	if err != nil {
		g.n.journal.record(warning, "process-ended", g.name(), fmt.Sprintf("a process of the guest was found and ended: %v", err))
		if err := client.KillNow(); err != nil {
			return nil, err
		}
		<-client.Done()
		client.Close()
		return nil, nil
	}
	m, err := g.adoptRunning(ctx, client, status)
	if err != nil {
		client.Close()
		return nil, err
	}
	return m, nil
}

// endForeign ends a process of the guest that an earlier agent left, on a node
// that does not own the guest any more.
func (g *guest) endForeign(ctx context.Context) {
	client, err := guard.Attach(ctx, g.layout.GuardConfig())
	if err != nil {
		return // nothing runs, or ctx ended
	}
	defer client.Close()
	g.n.journal.record(warning, "process-ended", g.name(), fmt.Sprintf("a process of %s ran on here and is ended: node %s owns it", g.name(), g.ownerName()))
	if err := client.KillNow(); err != nil {
		g.log.Error("a guest that is another node's was not ended", "error", err)
		return
	}
	select {
	case <-client.Done():
	case <-ctx.Done():
		return
	}
	if err := vm.Clean(g.n.platform(&launch{}), g.spec(), g.layout, false); err != nil {
		g.log.Warn("the ended guest left something behind", "error", err)
	}
}

// adoptRunning listens on the mirrors' socket before it speaks QMP: QEMU may
// hang until the replicator is back. A frozen guest is thawed by its lease.
func (g *guest) adoptRunning(ctx context.Context, client *guard.Client, status guard.Status) (*machine, error) {
	if status.Frozen {
		if err := g.thaw(ctx, client, status.Epoch); err != nil {
			return nil, err
		}
	}
	m := &machine{epoch: status.Epoch, adopted: true, guard: client, stopLease: g.keepLease(client, status.Epoch)}
	l := launch{}
	if err := g.listenFirst(m); err != nil {
		m.release()
		return nil, err
	}
	var err error
	if m.Guest, err = vm.Adopt(ctx, g.n.platform(&l), g.spec(), g.layout, wardenOf(client)); err != nil {
		m.release()
		return nil, err
	}
	m.monitor = l.monitor
	if _, err := qmp.RemoveStaleFDs(ctx, m.monitor); err != nil {
		g.log.Warn("files of an earlier agent stay with QEMU", "error", err)
	}
	g.n.journal.record(info, "guest-adopted", g.name(), fmt.Sprintf("%s runs on, adopted by this agent", g.name()))
	return m, nil
}

// listenFirst serves the mirrors of a guest that has any.
func (g *guest) listenFirst(m *machine) (err error) {
	g.mu.Lock()
	sizes := g.here.Sizes
	g.mu.Unlock()
	if g.spec().Protection.Level == vm.ProtectNone || len(sizes) != len(g.spec().Disks) {
		return nil
	}
	m.disks = sizes
	m.protector, err = g.newProtector(m)
	return err
}

// thaw waits for a lease of the epoch and gives it to the guard.
func (g *guest) thaw(ctx context.Context, client *guard.Client, epoch uint64) error {
	for {
		deadline, leased := g.leased()
		if leased {
			if err := client.Renew(ctx, epoch, deadline); err == nil {
				return nil
			} else if errors.Is(err, guard.ErrGone) {
				return err
			}
		}
		g.mu.Lock()
		changed, still := g.changed, g.epoch == epoch && g.owner == ha.NodeID(g.n.config.Name)
		g.mu.Unlock()
		if !still {
			return errYielded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *machine) ended() <-chan struct{} { return m.Done() }

// end is how QEMU ended, if it has.
func (m *machine) end() (vm.Exit, bool) {
	select {
	case <-m.Done():
		return m.Exit(), true
	default:
		return vm.Exit{}, false
	}
}

// killNow ends QEMU by its pidfd, without waiting for anybody.
func (m *machine) killNow() { _ = m.guard.KillNow() }

// close lets go of the connections.
func (m *machine) close() {
	m.release()
	if m.state != nil {
		ctx, cancel := context.WithTimeout(context.Background(), renewBound)
		_ = m.state.Close(ctx)
		cancel()
	}
	_ = m.Close()
	m.guard.Close()
}

// continueIfOurs continues a guest that an earlier agent stopped for a
// checkpoint and did not continue; the guard knows.
func (m *machine) continueIfOurs(ctx context.Context) error {
	status, err := m.guard.Status(ctx)
	if err != nil || status.Pause == 0 {
		return err
	}
	_, err = m.guard.EndPause(ctx, status.Pause)
	if err != nil {
		return err
	}
	return m.Execute(ctx, "cont", nil, nil)
}

// Execute implements snapshot.Monitor.
func (m *machine) Execute(ctx context.Context, command string, args, reply any) error {
	return m.monitor.Execute(ctx, command, args, reply)
}

// SaveDevices implements snapshot.Machine.
func (m *machine) SaveDevices(ctx context.Context) ([]byte, error) {
	m.saving.Lock()
	defer m.saving.Unlock()
	if m.state == nil {
		file, err := qmp.NewStateFile(ctx, m.monitor)
		if err != nil {
			return nil, err
		}
		m.state = file
	}
	return m.state.Save(ctx, nil)
}

// BeginPause implements snapshot.Machine.
func (m *machine) BeginPause(ctx context.Context, id uint64, bound time.Duration) error {
	return m.guard.BeginPause(ctx, id, bound)
}

// EndPause implements snapshot.Machine.
func (m *machine) EndPause(ctx context.Context, id uint64) (bool, error) {
	return m.guard.EndPause(ctx, id)
}

// diskSizes asks QEMU for the disks' sizes as the guest sees them.
func (m *machine) diskSizes(ctx context.Context, spec vm.Spec) ([]diskSize, error) {
	var nodes []struct {
		Name  string `json:"node-name"`
		Image struct {
			Size int64 `json:"virtual-size"`
		} `json:"image"`
	}
	if err := m.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return nil, fmt.Errorf("ask for the sizes of the disks: %w", err)
	}
	sizes := make([]diskSize, len(spec.Disks))
	for i, d := range spec.Disks {
		sizes[i].Name = d.Name
		for _, node := range nodes {
			if node.Name == fmt.Sprintf("top%d", i) {
				sizes[i].Size = node.Image.Size
			}
		}
		if sizes[i].Size <= 0 {
			return nil, fmt.Errorf("disk %s has no size that QEMU knows", d.Name)
		}
	}
	return sizes, nil
}
