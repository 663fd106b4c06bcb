package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vmctl/snapshot/nbd"
	"vmctl/snapshot/replicator"
)

// Monitor runs QMP commands.
type Monitor interface {
	Execute(ctx context.Context, command string, args, reply any) error
}

// MirrorDisk names the block nodes of one disk; they are those of the command
// line: top is what the device uses, base what holds the content.
type MirrorDisk struct {
	Name string
	Size int64 // bytes, as the guest sees it
	Top  string
	Base string
}

// Mirror is the QEMU side of disk replication: one write-blocking mirror job a
// disk into the replicator's socket, and a read-only export of each disk for
// the compare.
type Mirror struct {
	Monitor Monitor
	Disks   []MirrorDisk
	Target  string // the replicator's unix socket
	Export  string // QEMU's own NBD socket, for the compare

	reconnect int // tests: see reconnectDelay, which 0 means
}

// reconnectDelay is how many seconds QEMU holds mirror writes back for an agent
// that is away. It is longer than a lease: the guard freezes the guest before
// QEMU gives up and lets it write unreplicated.
const reconnectDelay = 30

// cancelBound bounds the end of a mirror job; a job that hangs on its target is
// forced.
const cancelBound = 5 * time.Second

type object = map[string]any

func (m *Mirror) run(ctx context.Context, command string, args object) error {
	if args == nil {
		args = object{}
	}
	return m.Monitor.Execute(ctx, command, args, nil)
}

func targetNode(i int) string { return fmt.Sprintf("t%d", i) }
func mirrorJob(i int) string  { return fmt.Sprintf("m%d", i) }

// Start makes everything anew: what an earlier agent left is taken down first.
// The replicator must listen already.
func (m *Mirror) Start(ctx context.Context) error {
	if err := m.Stop(ctx); err != nil {
		return err
	}
	server := object{"addr": object{"type": "unix", "data": object{"path": m.Export}}}
	if err := m.run(ctx, "nbd-server-start", server); err != nil {
		return fmt.Errorf("export the disks: %w", err)
	}
	for i, d := range m.Disks {
		if err := m.startDisk(ctx, i, d); err != nil {
			return fmt.Errorf("mirror disk %s: %w", d.Name, err)
		}
	}
	return nil
}

func (m *Mirror) startDisk(ctx context.Context, i int, d MirrorDisk) error {
	target := object{
		"driver": "nbd", "node-name": targetNode(i), "export": d.Name, "reconnect-delay": cmp.Or(m.reconnect, reconnectDelay),
		// Zeroes take no space in the replica either. A QEMU whose mirror passes a
		// discard on (7.2's filter node drops it before it reaches any disk) must
		// not lose it here: the disks would differ.
		"discard": "unmap", "detect-zeroes": "unmap",
		"server": object{"type": "unix", "path": m.Target},
	}
	if err := m.run(ctx, "blockdev-add", target); err != nil {
		return err
	}
	job := object{
		"job-id": mirrorJob(i), "device": d.Top, "target": targetNode(i), "sync": "none",
		"copy-mode": "write-blocking", "on-target-error": "stop", "auto-dismiss": true,
	}
	if err := m.run(ctx, "blockdev-mirror", job); err != nil {
		return err
	}
	export := object{"type": "nbd", "id": "ex-" + d.Base, "node-name": d.Base, "name": d.Name, "writable": false}
	return m.run(ctx, "block-export-add", export)
}

// Stop takes jobs, targets and exports down, as far as there are any. The
// guest's disks are as before Start.
func (m *Mirror) Stop(ctx context.Context) error {
	jobs, err := m.jobs(ctx)
	if err != nil {
		return err
	}
	for i := range m.Disks {
		if !slices.ContainsFunc(jobs, func(j blockJob) bool { return j.Device == mirrorJob(i) }) {
			continue
		}
		if err := m.run(ctx, "block-job-cancel", object{"device": mirrorJob(i), "force": true}); err != nil {
			return fmt.Errorf("end mirror job %s: %w", mirrorJob(i), err)
		}
	}
	if err := m.waitGone(ctx); err != nil {
		return err
	}
	// Ends the exports too. Without a server there is nothing to stop.
	if err := m.run(ctx, "nbd-server-stop", nil); err != nil && !strings.Contains(err.Error(), "not running") {
		return fmt.Errorf("end the export of the disks: %w", err)
	}
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := m.Monitor.Execute(ctx, "query-named-block-nodes", object{"flat": true}, &nodes); err != nil {
		return fmt.Errorf("list block nodes: %w", err)
	}
	for i := range m.Disks {
		for _, node := range nodes {
			if node.Name != targetNode(i) {
				continue
			}
			if err := m.run(ctx, "blockdev-del", object{"node-name": targetNode(i)}); err != nil {
				return fmt.Errorf("remove mirror target %s: %w", targetNode(i), err)
			}
		}
	}
	return nil
}

// waitGone waits for cancelled jobs to end. A cancelled job may wait for its
// target; yank cuts that connection.
func (m *Mirror) waitGone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cancelBound)
	defer cancel()
	for round := 0; ; round++ {
		jobs, err := m.jobs(ctx)
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(jobs, func(j blockJob) bool { return !m.ours(j.Device) })
		if len(left) == 0 {
			return nil
		}
		if round == 50 {
			for i := range m.Disks {
				_ = m.run(ctx, "yank", object{"instances": []object{{"type": "block-node", "node-name": targetNode(i)}}})
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("end mirror job %s: %w", left[0].Device, ctx.Err())
		}
	}
}

func (m *Mirror) ours(job string) bool {
	for i := range m.Disks {
		if job == mirrorJob(i) {
			return true
		}
	}
	return false
}

type blockJob struct {
	Device   string `json:"device"`
	Ready    bool   `json:"ready"`
	Paused   bool   `json:"paused"`
	IOStatus string `json:"io-status"`
	Status   string `json:"status"`
	Len      int64  `json:"len"`    // bytes that were, or are, on the way to the target
	Offset   int64  `json:"offset"` // bytes that are there
	Error    string `json:"error"`
}

func (m *Mirror) jobs(ctx context.Context) (jobs []blockJob, err error) {
	if err := m.Monitor.Execute(ctx, "query-block-jobs", nil, &jobs); err != nil {
		return nil, fmt.Errorf("query mirror jobs: %w", err)
	}
	return jobs, nil
}

// ErrMirror says that a mirror job is gone or failed: writes of the guest may
// have gone past it.
var ErrMirror = errors.New("a disk's mirror has failed")

// Check returns nil if every disk's job carries the guest's writes now.
func (m *Mirror) Check(ctx context.Context) error {
	jobs, err := m.jobs(ctx)
	if err != nil {
		return err
	}
	for i, d := range m.Disks {
		n := slices.IndexFunc(jobs, func(j blockJob) bool { return j.Device == mirrorJob(i) })
		if n < 0 {
			return fmt.Errorf("disk %s has no mirror job: %w", d.Name, ErrMirror)
		}
		// A paused guest pauses nothing here; a job that met an error is paused
		// with an I/O status, and stays paused when a `cont` has made that "ok".
		if j := jobs[n]; !j.Ready || j.Paused || j.IOStatus != "ok" || j.Error != "" {
			return fmt.Errorf("disk %s: mirror job is %s, I/O %s %s: %w", d.Name, j.Status, j.IOStatus, j.Error, ErrMirror)
		}
	}
	return nil
}

// replicatorDisks describes the disks to the replicator.
func (m *Mirror) replicatorDisks() []replicator.Disk {
	var disks []replicator.Disk
	for _, d := range m.Disks {
		disks = append(disks, replicator.Disk{
			Name: d.Name, Size: d.Size, Socket: m.Target,
			Source: func(ctx context.Context) (replicator.Source, error) { return nbd.Dial(ctx, m.Export, d.Name) },
		})
	}
	return disks
}
