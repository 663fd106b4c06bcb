// Package recovery decides when and how the guests of a node are started, and
// when one goes home. Who may run a guest is not its business: package ha says
// which guests are this node's, and this package puts their starts in order.
//
// A Planner (one per node) is fed events with the local time and answers with
// actions:
//
//	actions := planner.Step(now, event)
//
// Step is pure: no I/O, no clock, no goroutine; the same inputs give the same
// actions in the same order. One goroutine owns the planner, executes the
// actions in list order, and tells what became of each Start.
//
// Invariants, checked by a random test:
//
//   - one Start is good for one attempt: there is never a second one before
//     Failed, Ended or a new epoch;
//   - no Start for a guest that is not this node's, is not wanted, runs, is to be
//     left alone or was given up, but by the user's word;
//   - nothing waits for ever: every wait for others has a bound, and cycles are
//     passed over;
//   - a resume is tried once an epoch, and only of a guest just taken over;
//   - at most one guest goes home at a time, and only to its home.
package recovery
