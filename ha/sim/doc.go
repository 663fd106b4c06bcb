// Package sim drives two production ha.Cores and the witnesses through seeded
// schedules of faults and checks, at every change, that no guest ever executes
// twice and no acknowledged write is lost.
//
// Everything around the cores is modelled: a clock per host that drifts, a
// network that loses, delays, repeats and reorders messages and is cut one way
// or both, stores that fail or are slow, agents that crash or are paused, hosts
// that lose power, a guard per guest that alone enforces the deadline, and a
// replication engine that counts writes.
//
// A run is a pure function of its Options: the same seed gives the same run.
package sim
