package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"vmctl/node/clock"
	"vmctl/snapshot"
	"vmctl/vm"
	"vmctl/vm/guard"
	"vmctl/vm/qmp"
	"vmctl/vm/video"
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
	clock     *clock.Keeper // nil: no guest agent's port

	screen *video.Mirror // nil before the first checkpoint; the protector's goroutine has it
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

// errUnleased is no fault of the guest's.
var errUnleased = errors.New("there is no lease: neither peer nor witness has confirmed that this node may run the guest")

// guestScore is what the kernel adds to a guest's part of the host's memory, in
// thousandths of that, when it looks for a process to end for lack of it. Whatever is
// not ours goes first. The agent has a score of -800 from its unit: it goes before the
// largest guest if the copies that it holds are about as large, for it comes back
// within a lease, and no guest notices. It gives them up before that, see headroom.Budget.
const guestScore = -850

// request describes a start under the present lease.
func (g *guest) request(epoch uint64, options vm.Options) (vm.Request, error) {
	deadline, leased := g.leased()
	if !leased {
		return vm.Request{}, errUnleased
	}
	return g.describe(epoch, deadline, options), nil
}

func (g *guest) describe(epoch uint64, deadline int64, options vm.Options) vm.Request {
	var used []string
	for path := range g.n.guests.usedDisks(g.id) {
		used = append(used, path)
	}
	return vm.Request{
		Spec: g.spec(), Layout: g.layout, Host: g.n.host, Options: options,
		UsedDisks: used, Epoch: epoch, DeadlineNS: deadline,
		Limits: guard.Limits{OOMScoreAdj: new(guestScore)},
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
	_ = m.closeScreen()
	_ = m.Close()
	m.guard.Close()
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

// topNode is the block node that the device of a disk uses.
func topNode(disk int) string { return fmt.Sprintf("top%d", disk) }

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
			if node.Name == topNode(i) {
				sizes[i].Size = node.Image.Size
			}
		}
		if sizes[i].Size <= 0 {
			return nil, fmt.Errorf("disk %s has no size that QEMU knows", d.Name)
		}
	}
	return sizes, nil
}
