// Package sim drives two production ha.Cores and the witnesses through seeded
// schedules of faults and checks, at every change, that no guest ever executes
// twice and no acknowledged write is lost.
//
// Everything around the cores is modelled: a clock per host that drifts and is
// read late, a network that loses, delays, repeats and reorders messages and is
// cut one way or both, stores that fail, are full or slow, agents that crash or
// are paused, hosts that sleep or lose power, a guard per guest that enforces
// the deadline and an agent that does if the guard is stopped, a fence device,
// and a replication engine with writes and checkpoints.
//
// A run is a pure function of its Options: the same seed gives the same run.
package sim
