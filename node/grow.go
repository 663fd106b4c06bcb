package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vmctl/node/api"
	"vmctl/vm"
	"vmctl/vm/disk"
)

// growth is a disk of a running guest that is to be larger. QEMU refuses that under
// a mirror, so the goroutine that protects the guest does it between two protectors.
type growth struct {
	disk int
	size int64 // bytes
	done chan error
}

// Bounds of it.
const (
	growBound  = 30 * time.Second // until the mirrors are down
	growAnswer = 10 * time.Second // of QEMU and the file system
)

// growRunning has a disk of the running guest made larger, and waits for that, not
// for the replica. After an error it may be all the same; agreeOnSizes sees to it.
func (g *guest) growRunning(ctx context.Context, m *machine, i int, size int64) error {
	wish := &growth{disk: i, size: size, done: make(chan error, 1)}
	wait, cancel := context.WithTimeout(ctx, growBound)
	defer cancel()
	g.locked(func() { g.growing = wish })
	why := errors.New("the guest has ended")
	select {
	case err := <-wish.done:
		return err
	case <-m.ended():
	case <-wait.Done():
		why = fmt.Errorf("its mirrors to the peer were not taken down: %w", wait.Err())
	}
	withdrawn := false
	g.locked(func() {
		if withdrawn = g.growing == wish; withdrawn {
			g.growing = nil
		}
	})
	if withdrawn {
		return why
	}
	select { // it has begun and is bounded
	case err := <-wish.done:
		return err
	case <-m.ended():
		return why
	}
}

// sayGrowing tells people why the replica does not count for now.
func (g *guest) sayGrowing() {
	g.mu.Lock()
	wish, level := g.growing, g.record.Spec.Protection.Level
	g.mu.Unlock()
	if wish == nil || level == vm.ProtectNone {
		return
	}
	g.locked(func() {
		g.status.phase = "outdated"
		g.status.reason = fmt.Sprintf("disk %s is made larger; the replica counts again when its disks are, and everything was compared", g.record.Spec.Disks[wish.disk].Name)
	})
}

// growAsked does what the user has asked for, if anything. unmirrored is why the
// mirrors are still there.
func (g *guest) growAsked(ctx context.Context, m *machine, unmirrored error) {
	var wish *growth
	g.mu.Lock()
	wish, g.growing = g.growing, nil
	g.mu.Unlock()
	if wish == nil {
		return
	}
	err := unmirrored
	if err == nil {
		err = g.growNow(ctx, m, wish.disk, wish.size)
	}
	wish.done <- err
}

// growNow makes a disk without a mirror larger: first the replica is outdated, then
// the disk is larger, durably, then the spec says so. Whatever is cut off, the
// replica does not count, and agreeOnSizes goes on from what is there.
func (g *guest) growNow(ctx context.Context, m *machine, i int, size int64) error {
	ctx, cancel := context.WithTimeout(ctx, growAnswer)
	defer cancel()
	if err := g.detach(ctx); err != nil {
		return err
	}
	spec := g.spec()
	d, file := spec.Disks[i], g.layout.Disk(spec.Disks[i], g.onReplica())
	now, err := m.diskSizes(ctx, spec)
	if err != nil {
		return err
	}
	if now[i].Size > size { // QEMU would do it
		return disk.ErrShrink
	}
	if err := vm.BeforeGrowing(d, file, now[i].Size, size); err != nil {
		return err
	}
	if err := m.Execute(ctx, "block_resize", map[string]any{"node-name": topNode(i), "size": size}, nil); err != nil {
		return fmt.Errorf("have QEMU make disk %s larger: %w", d.Name, err)
	}
	if err := disk.Sync(file.Path); err != nil {
		return err
	}
	return g.keepSize(i, size)
}

// keepSize has the spec say how large a disk is.
func (g *guest) keepSize(i int, size int64) error {
	if spec := g.spec(); spec.Disks[i].Path != "" || int64(spec.Disks[i].Size) == size {
		return nil
	}
	return g.write(func(r *guestRecord) { r.Spec = r.Spec.Resized(i, size) })
}

// agreeOnSizes makes spec and disks of a running guest say the same, where a crash,
// or a takeover by a node whose copy had not grown, came between. A disk is never
// made smaller: the larger of the two stands.
func (g *guest) agreeOnSizes(ctx context.Context, m *machine) {
	bound, cancel := context.WithTimeout(ctx, growAnswer)
	defer cancel()
	spec := g.spec()
	sizes, err := m.diskSizes(bound, spec)
	if err != nil {
		if ctx.Err() == nil {
			g.log.Warn("the sizes of the disks are not compared with the spec", "error", err)
		}
		return
	}
	if m.protector != nil && !slices.Equal(m.disks, sizes) {
		// An earlier agent died when it had taken the mirrors down: what serves them
		// here is of the disks as they were.
		g.endProtector(m)
	}
	for i, d := range spec.Disks {
		said, is := int64(d.Size), sizes[i].Size
		switch {
		case said == 0 || said == is || said > is && m.protector != nil:
			continue
		case said > is:
			err = g.growNow(bound, m, i, said)
		default:
			err = g.keepSize(i, is)
		}
		text := fmt.Sprintf("disk %s of %s has %d bytes, its spec says %d", d.Name, spec.Name, is, said)
		if err != nil {
			g.n.journal.record(warning, "disk-sizes-differ", spec.Name, fmt.Sprintf("%s, and that stays: %v", text, err))
			continue
		}
		g.n.journal.record(info, "disk-resized", spec.Name, text+"; the larger one holds")
	}
}

// sizesNow are the sizes of the guest's disks as it sees, or would see, them.
func (g *guest) sizesNow(ctx context.Context) ([]diskSize, error) {
	ctx, cancel := context.WithTimeout(ctx, growAnswer)
	defer cancel()
	spec := g.spec()
	if m := g.current(); m != nil {
		return m.diskSizes(ctx, spec)
	}
	var sizes []diskSize
	for _, d := range spec.Disks {
		info, err := (disk.Tool{Path: g.n.host.QEMUImg}).Info(ctx, g.layout.Disk(d, g.onReplica()).Path)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, diskSize{Name: d.Name, Size: info.VirtualSize})
	}
	return sizes, nil
}

// diskNamed is the place of a disk in the spec.
func diskNamed(spec vm.Spec, name string) (int, error) {
	var names []string
	for i, d := range spec.Disks {
		if d.Name == name {
			return i, nil
		}
		names = append(names, d.Name)
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	return 0, api.Errorf(api.NotFound, "resize disk %s of %s: it has no disk of that name", name, spec.Name).WithHint("It has %s.", strings.Join(names, ", "))
}
