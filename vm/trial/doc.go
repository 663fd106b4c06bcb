// Package trial finds out whether one QEMU can load what another one saves: a
// paused machine with a guest's devices is saved here, and loaded there into a
// QEMU that never executes anything. An equal machine type proves nothing.
//
// It must not touch a guest: a trial has its own memory, disks, sockets and
// UUID, on user networks without a way in, and it must not know about peers.
//
// Invariants:
//   - Nothing is left of a trial, whatever comes of it: QEMU dies with the agent,
//     its files are in one directory of its own.
//   - The CPU is compared too, feature by feature, because no QEMU looks at it
//     when it loads a state: a guest would find instructions gone.
//   - A trial ends within Bound.
package trial
