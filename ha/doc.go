// Package ha decides which node may run a guest, and does nothing else.
//
// A Core (one per node) and a Witness (one per cluster, optional) are fed
// events with the local time and answer with actions:
//
//	actions := core.Step(now, event)
//
// Step is pure: no I/O, no clock, no goroutine, and the same inputs always
// give the same actions in the same order. The caller owns the core from one
// goroutine and executes the actions in list order (see Action).
//
// The package must not know how anything is sent, stored, started or killed.
// It imports the standard library only.
//
// Invariants, checked by simulation (ha/sim) and explained in DESIGN.md:
//
//   - at most one node executes a guest at any instant;
//   - the epoch of a guest only rises, and one epoch has one owner;
//   - a replica that lacks acknowledged writes is never promoted on its own;
//   - everything a message says was durable before the message left.
package ha
