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
//   - The replica counts as in sync only after every chunk was compared that may
//     differ: see below; every chunk, if that is not known or Recheck was called.
//
// # Who works on a write
//
// Waking somebody takes longer than what is to be done for a short write, so the
// goroutine that has read something does all it can: that which reads from QEMU sends,
// if nobody else does and nothing is queued; that which has applied frames acknowledges,
// if nothing more has come; that which hears of it answers QEMU. With several writes
// under way the sender and the acknowledger take over, for several frames together. In
// either case the queue is the order of the stream (see send.go), and a write's data
// is used until it is acknowledged or its link is over, and not after.
//
// A long write comes in pieces, each of which is a write of its own here; QEMU is
// answered after all of them. A write that was not answered may be in the replica in
// part, as in any disk that loses power.
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
// # What may differ, and when that is known
//
// The work is a bit per 64 KiB chunk, and says for one replica, named by its
// Identity: outside of these chunks, and of writes that QEMU has not been answered,
// disk and replica are equal. It begins as everything. A chunk goes in when a write
// to it is answered while the replica is outdated and there is no link (before the
// answer), and when the guest discards it. It goes out when it was compared over a
// link. So a link that is lost loses nothing of a compare, and one that is back
// needs only what was written meanwhile.
//
// The dirty map is the work in a file, for an agent that is killed and its
// successor: written before the answer with write(2), which no kill takes back.
// Why it holds: QEMU holds a write back until it is answered, and sends it again to
// the successor, so the successor sees every write that is not in the map. For how
// long: QEMU gives up on an agent that is away longer than the mirror's
// reconnect-delay and writes past it; the job then has failed, which it stays until
// it is made anew, and the caller looks (before it keeps the mirrors, and before the
// replica counts).
//
// Why the map is not synced to the disk: nothing makes it true after a power cut of
// the owner, nor after the death of its QEMU. QEMU writes the disk first and the
// mirror then, so the disk may have a write that no agent has heard of, and may lack
// one, not flushed by the guest, that the replica has. No map on this side of the
// mirror knows either. Therefore the file names the boot of the host and the QEMU
// process, belongs on a tmpfs, and means nothing to any other.
//
//	what happened                                          what is compared
//	the link was lost, the agent lives                     what was written meanwhile
//	a compare was cut off                                  the rest of it, and that
//	agent killed or restarted, QEMU's mirrors are good     the same, from the map
//	agent away for longer than the reconnect-delay         everything
//	a mirror job failed, or a mirror connected unexpectedly  everything
//	QEMU ended, was killed, or started; a new owner        everything
//	power cut or crash of the owner's host                 everything
//	peer's agent killed, restarted, upgraded               as if the link was lost
//	peer's host shut down, or crashed without a stream     as if the link was lost
//	peer's host crashed while a stream was served          everything
//	peer failed to flush, rolled back, was taken over      everything
//	Verify has found a difference                          everything
//	a peer, or an owner, of the version before             everything
//	the map's file cannot be read, or is of anything else  everything
//	a block of it is damaged                               the 252 MiB it is about
//
// What remains trusted: that a byte of either disk is changed by nobody else. For
// that there is Verify.
//
// # The replica's identity
//
// What the peer has acknowledged it has in its page cache at least, and flushes
// within a second. The Identity stays the same only while that is as good as on the
// disk: see there. The owner sends the one it compares for with its Hello, and a
// Receiver whose replica has become another one refuses it.
//
// # What the replica keeps during a resync
//
// Compared chunks arrive in no order that the guest had: until the last of them, the
// replica's disks are of no moment. With Hold the owner says so before the first, and
// a replica that is whole then keeps that content (undo.Hold); with Whole he asks for
// the end of it, and the replica answers when all is durable and nothing older is kept.
// The file of the Identity says which of both it is, in one write.
//
//   - Hold with Keep is sent only while the replica is durably outdated, and InSync is
//     called only after the answer to Whole: so a replica that counts keeps nothing, and
//     a takeover that finds something kept is one that an operator has ordered.
//   - Whether the content is whole is the owner's to say: after a Verify found a
//     difference, or when writes can have gone past one mirror and not another, it is
//     not, until the next Whole.
//   - Whole is forgotten when the Identity changes; what is held stays, for its log is
//     durable before the data. Writes wait for that in a backlog, batch by batch.
//   - Holding is given up rather than the resync.
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
