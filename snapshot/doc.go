// Package snapshot puts checkpoints together: on the owner a Protector captures
// RAM, device state and disk marker of one instant and sends them; on the peer
// a Standby holds disks and replica, and gives out what to resume.
//
// Its sub-packages do the parts: memory (changed pages), replica (staging and
// committing), replicator (disk writes), undo (rollback), nbd (QEMU's disk
// protocol). This package knows QEMU's block jobs and the order of steps. It
// must not know who may own a guest, how the peer is found, or how QEMU is
// started: it gets a Machine, streams and callbacks.
//
// Invariants:
//   - the guest is stopped while RAM, device state and marker are taken, and the
//     guard ends the pause if the agent does not; a checkpoint whose pause was
//     ended by the guard is thrown away;
//   - nothing is captured unless every disk's mirror job is ready: a job that
//     failed has let writes past it, so it is made anew and everything compared;
//   - only a guest that this package stopped is continued by it.
package snapshot
