package main

var (
	blockLoads = []load{random1, random16, sequential, deep}
	blockArms  = []string{armNone, armTwice, armStock, armCopy, armOurs} // and armOther, if there is one
	guestLoads = []load{random1, random16, sequential, database}
	guestArms  = []string{armNone, armStock, armRestart, armResume}
)

const head = `# Replication of disks

What replicating a disk costs its writer. Everything on one machine with two processors, the disks of all in memory (tmpfs), where
replication costs most against the writing itself. Command: ` + "`make bench-replication`" + `; each sample is a line of
[replication.jsonl](replication.jsonl). In a round every way of replicating has its turn, and another one is the first; figures are
medians over the rounds, ratios those of ratios within a round.

- *not replicated*: the disk alone.
- *written twice here*: QEMU's write-blocking mirror to a second file of the same machine, without any network: what a second write costs.
- *QEMU's mirror*: the same mirror to qemu-storage-daemon (NBD over TCP, not encrypted), which keeps no log: it could not go back to a checkpoint.
- *QEMU's mirror, copied on*: the same, with a process between that only copies the bytes both ways: what it costs to be there at all, as ours has to
  be, without encryption, log, or a bound on waiting.
- *ours*: the mirror to our replicator, mutual TLS to the peer, which keeps the undo log, with a marker twice a second and what a commit does.

A guest's flush does not reach the other side in any of them. Where the time goes, by profiles: [replication-notes.md](replication-notes.md).
`

const blocksText = `QEMU's block layer in qemu-storage-daemon with the nodes of a guest's disk (256 MiB), an NBD client on a unix socket that writes where
the device would, and our two sides in processes of their own. No processor time of a guest is in it. *processor* is what one write
costs all these processes together.
`

const guestText = `The product in two namespaces with a switch between, a Linux guest (TCG, 128 MB, one CPU) whose second disk is written past its page
cache, each write durable when it returns (O_DIRECT, O_DSYNC: a write and a flush). sqlite: Debian's, write-ahead log, synchronous=FULL; a
transaction adds a row and changes one of 20,000 at random. *ours, restart* keeps the disks only; *ours, resume* takes a
checkpoint twice a second beside, whose pauses are in it: rates are by the clock outside, times of one write by the guest's.
`
