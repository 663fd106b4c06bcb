// Package undo keeps a replica's disk image together with what was overwritten
// since each marker, so that the image can be brought back to a marker exactly.
//
// The image at PATH is raw and sparse. Beside it, the directory PATH.undo holds
// one segment per marker: segment N has the contents that were overwritten for
// the first time after marker N and before the next one. Without any marker
// (a replica still being filled) nothing is logged.
//
// It knows bytes, blocks and markers. It must not know guests, epochs, links or
// why there is a marker.
//
// Invariants:
//   - the record of a block's old content is in the segment before the block is
//     overwritten (write(2) has returned). So a torn tail, which can only be the
//     record being written when the process died, belongs to a block that was
//     not overwritten, and is cut off at Open;
//   - a block is logged at most once per segment, so a segment is never larger
//     than the image plus its record headers. Where a block is there twice
//     (two processes), the older record wins, as records are undone newest first;
//   - records hold contents, not differences: undoing twice does no harm, so a
//     rollback cut off at any point is simply done again;
//   - Fold moves what only abandoned markers have logged to the one that is kept,
//     and removes their segments after that is durable: a block may be in two
//     segments meanwhile, and the older record, undone last, is the older content;
//   - a hold (Hold, Restore) has a log of its own, durable before what it covers
//     is overwritten, so that it outlives a power cut, which no marker does;
//   - an image grows only by Grow, which is told from which size; what was logged
//     before stays good, for the new part was empty then;
//   - markers rise. Rollback(N) leaves N as the newest marker, with nothing
//     written after it.
//
// What survives: the death of the process at any instant (the page cache keeps
// what write(2) took). A power cut does not keep the order of unsynced writes;
// whoever opens a disk after one must compare it against the other side. A
// rollback survives it if SyncLog came before it and it is done again after it.
package undo
