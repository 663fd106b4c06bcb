// Package replicator carries the writes of a running guest to its replica.
//
// On the owner, QEMU mirrors every disk (write-blocking) into a Replicator, an
// NBD server with one export per disk, which sends the writes in order over one
// Stream to the peer. There a Receiver applies them to undo.Disks and
// acknowledges. Markers travel in the same order and cut all disks of the guest
// at one point.
//
// It knows disks by name, frames and marker numbers. It must not know QMP,
// checkpoints, leases, or how the peer was found; whether a replica counts is
// decided outside, through the Degrade and InSync callbacks.
//
// # Invariants of the owner's side
//
//   - A guest's write is acknowledged when the peer has applied it, or when the
//     replica is durably outdated (Degrade returned nil) and the link is gone.
//     Never otherwise; it waits.
//   - Outdated is taken back before InSync is called, so that a link lost while
//     InSync runs needs a new Degrade.
//   - The replica counts as in sync only after every byte was compared over the
//     present link, since it was attached or Recheck was called.
//
// # The compare, and why the guest does not wait for it
//
// A chunk is read from the live disk, hashed, and sent if the peer's hash of it
// differs. QEMU writes the source disk before the mirror, so a byte that was
// read is never older than what was forwarded before the read began; only what
// is forwarded after that may be newer. Those ranges are recorded while the
// chunk is examined, and what is sent leaves them out. Sending and forwarding
// take the same lock, in which the order of the stream is made, so nothing falls
// between. No lock is held while the live disk is read: QEMU may be draining
// (it then waits for mirror writes and answers no reads), and would wait for us
// while we wait for it.
//
// If the hashes are equal the peer has the right bytes: a byte forwarded later
// is overwritten in order, and one that is not has the value that was read.
//
// # Verify
//
// Verify compares while the replica counts and repairs nothing itself: an undo
// log would bring a wrong byte back at the next rollback, and until a repair is
// complete the peer could be promoted with it. A proved difference outdates the
// replica durably, ends the link, and leaves the repair to the next link's compare
// of everything, after which the replica counts as any other that was outdated:
// with checkpoints, only once one was committed. From the proof on no marker is
// set. See judge for what proves a difference.
package replicator
