package lab

import (
	"context"
	"path/filepath"
	"time"

	"vmctl/vm"
	"vmctl/vm/guard"
)

// Waits says whether a QEMU waits here to take the guest: its guard knows.
func (h *Host) Waits(ctx context.Context, uuid string) bool {
	status, err := h.guarded(ctx, uuid)
	return err == nil && status.Standby
}

// Frozen says whether the guest's guard here has frozen it.
func (h *Host) Frozen(ctx context.Context, uuid string) bool {
	status, err := h.guarded(ctx, uuid)
	return err == nil && status.Frozen
}

// guarded is what the guest's guard here says of it.
func (h *Host) guarded(ctx context.Context, uuid string) (guard.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := guard.Attach(ctx, vm.NewLayout(h.StateDir(), filepath.Dir(h.Socket()), h.ram, uuid).GuardConfig())
	if err != nil {
		return guard.Status{}, err
	}
	defer client.Close()
	return client.Status(ctx)
}

// Claimed waits until the QEMU that waits here is put under the new owner's epoch.
func (h *Host) Claimed(ctx context.Context, uuid string) error {
	client, err := guard.Attach(ctx, vm.NewLayout(h.StateDir(), filepath.Dir(h.Socket()), h.ram, uuid).GuardConfig())
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		if status, err := client.Status(ctx); err != nil || !status.Standby {
			return err
		}
	}
}
