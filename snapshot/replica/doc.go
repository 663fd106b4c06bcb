// Package replica keeps the peer's copy of one guest: its disks, its RAM and
// the last device state, as checkpoint (epoch, sequence). It has both ends: a
// Sender on the owner, a Replica that receives, commits and takes over.
//
// It must not know QEMU, who may own a guest, or how disks are replicated: it
// sees disks through the Disks interface and links through Stream.
//
// The senders of a node share the way to the peer (Share): full images hold back
// for deltas. Whether pages are compressed is measured on the stream.
//
// A checkpoint is staged whole in the RAM directory (tmpfs) and verified. Then
// the disks' mark is awaited, the disks are flushed, and a record is renamed
// into place: the commit point. Only after it the RAM image changes. What a
// crash leaves is checkpoint N or N-1, never a mixture:
//   - before the rename: the staged files are discarded by the next Open;
//   - after it: Open applies the staged delta again, from its beginning, before
//     anything else; applying is idempotent. The staged file is removed only
//     when every page is in place, so its absence means that it was applied;
//   - a full image goes into a RAM file of its own, named in the record.
//
// Other invariants:
//   - frames of an epoch below the floor are refused, under the same lock as
//     the commit; the floor is durable before TakeOver touches anything;
//   - a sequence is used once in an epoch, also if its checkpoint failed;
//   - a delta (base B, root R) is taken only by an image that started from the
//     full image R of the same epoch and holds a checkpoint >= B: the sender
//     puts every page changed since B into it, so a commit whose
//     acknowledgement was lost does no harm;
//   - RAM does not outlive a boot of the host: the record holds the boot id;
//   - the way back from checkpoint N to N-1 (StepBack) is whole before the commit
//     point of N, and made of the pages that N's delta overwrites; the disks
//     keep both marks. It is taken as a commit is: by the record, then by pages;
//   - the memory of a checkpoint that does not count may be given up for the image
//     that follows it, which would have no room; the record stays, as after a boot;
//   - no data of RAM files is ever fsynced, all of the record always is.
package replica
