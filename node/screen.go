package node

import (
	"context"
	"errors"
	"fmt"

	"vmctl/snapshot"
	"vmctl/snapshot/replica"
	"vmctl/vm"
	"vmctl/vm/video"
)

// screenOf gives what brings the memory of the guest's screen into its memory
// file, or nil if it has no screen.
func (m *machine) screenOf(spec vm.Spec, layout vm.Layout) func(context.Context) error {
	size := int64(spec.VideoMemory())
	if size == 0 {
		return nil
	}
	return func(ctx context.Context) (err error) {
		if m.screen == nil {
			m.screen, err = video.Open(ctx, m.monitor, m.guard.PID(), vm.VideoDevice, layout.RAM(), int64(spec.Memory), size)
		}
		switch {
		case errors.Is(err, video.ErrHidden):
			return fmt.Errorf("%w: %w", snapshot.ErrNotYet, err)
		case err != nil:
			return err
		}
		return m.screen.Refresh()
	}
}

func (m *machine) closeScreen() error {
	if m.screen == nil {
		return nil
	}
	return m.screen.Close()
}

// withScreen is the device state of a checkpoint, with the memory of the guest's
// screen if it has one.
func withScreen(spec vm.Spec, from replica.Checkpoint) ([]byte, error) {
	size := int64(spec.VideoMemory())
	if size == 0 {
		return from.Blob, nil
	}
	content, err := video.Read(from.RAMPath, int64(spec.Memory), size)
	if err != nil {
		return nil, err
	}
	state, err := video.Insert(from.Blob, vm.VideoBlock, content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errState, err)
	}
	return state, nil
}
