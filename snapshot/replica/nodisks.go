package replica

import "context"

// noDisks is a guest without disks.
type noDisks struct{}

func (noDisks) WaitMark(context.Context, uint64) error      { return nil }
func (noDisks) Sync() error                                 { return nil }
func (noDisks) Rollback(_ uint64, ready func() error) error { return ready() }
func (noDisks) Drop(uint64) error                           { return nil }
func (noDisks) Fold(uint64, uint64) error                   { return nil }
func (noDisks) Close() error                                { return nil }
