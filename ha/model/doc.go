// Package model searches every course of events within small bounds over the
// production ha.Core and ha.Witness, breadth first, and checks at every state
// that no guest executes twice, that epochs rise, that a replica which lacks
// acknowledged writes is not promoted by itself and that nothing stale is
// acknowledged.
//
// Time goes in steps of one second. Links deliver at once, lose, or hold what
// they are given; a held message may come later, out of order or twice. Agents
// crash, start, are paused; hosts lose power or are suspended; clocks change
// their rates between the bounds of the protocol; stores are full; people hand
// guests over, remove the witness and add it. Only the guard, given all of its
// stop time, ends an execution.
//
// A Variant breaks one rule at the edge of the machines, to show that the
// search can fail. The package must not know how the machines decide.
package model
