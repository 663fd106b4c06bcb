// Package store keeps the durable state of a node or a witness in one file:
// typed tables and append-only logs over bbolt, records in msgpack.
//
// It knows no domain type. Other packages declare their tables as values
// (NewTable, NewLog) and decide what a key and a record mean. It must not
// import another package of vmctl.
//
// Invariants:
//   - one process has the file open; a second one gets ErrLocked;
//   - what Update returned nil for survives SIGKILL and power cut, what it
//     returned an error for is not there, with the one named exception
//     ErrUncertain, after which the DB takes no more writes until reopened;
//   - a revision is handed out once in the life of the file, over all tables,
//     deletes and restarts; a sequence of a Log likewise in its log;
//   - the epoch of a row never falls, whatever is written, until it is deleted;
//   - a record is bound to its table and key by a checksum: a damaged or
//     misplaced one is ErrCorrupt for its own key, never a wrong value;
//   - a damaged file is refused at Open by a reader that cannot crash (see
//     verify), before bbolt, which trusts what it maps, touches it;
//   - a file of a newer schema is refused and not one byte of it changes.
//
// Transactions: one Update at a time, any number of Views beside it. Neither
// nests in the other on one goroutine: that can deadlock. Keep Views short;
// pages freed meanwhile cannot be reused while one is open.
//
// Restoring a backup (stop the process, copy the file into place) takes
// revisions, sequences and epochs back too: whoever restores must fence by
// other means first.
package store
