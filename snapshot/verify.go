package snapshot

import (
	"context"
	"fmt"

	"vmctl/snapshot/replicator"
)

// Verify compares the guest's disks with its replica, which must be in sync;
// see replicator.Verify. A guest without disks has nothing to compare.
func (p *Protector) Verify(ctx context.Context, tell func(replicator.Verified)) (replicator.Verified, error) {
	if p.replicator == nil {
		return replicator.Verified{}, nil
	}
	v, err := p.replicator.Verify(ctx, tell)
	if err != nil {
		return v, fmt.Errorf("compare the disks: %w", err)
	}
	return v, nil
}

// Repaired is what the present link's compare has sent: how many bytes, and the
// first ranges.
func (p *Protector) Repaired() (int64, []replicator.Range) {
	if p.replicator == nil {
		return 0, nil
	}
	return p.replicator.State().Sent, p.replicator.Differences()
}
