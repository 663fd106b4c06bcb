// Command replication measures what replicating a disk costs its writer: not
// replicated, mirrored by QEMU alone, and by us, in turns on one machine. It
// writes bench/replication.md from the samples in bench/replication.jsonl. It is
// `make bench-replication`.
//
// It does so twice: in a real guest, and below one, where the processor of an
// emulated guest hides nothing. Below, QEMU's block layer runs in its storage
// daemon, and an NBD client writes where a guest's device would.
package main
