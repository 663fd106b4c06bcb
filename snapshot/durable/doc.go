// Package durable makes the changes of files whose order decides what a power
// cut leaves: a replica's disks, their undo logs, and its record.
//
// It adds nothing to the system calls but a place where all of them pass: a test
// that sets Files.Watch sees every change before it is made, can end the world
// there, and knows from what was not synced what a power cut may leave. It must
// not know what the files are.
//
// Invariants:
//   - a change that Watch refuses is not made (of a torn write, half of it);
//   - Sync makes a file's content durable, SyncDir the names in a directory;
//     nothing else is relied upon, in particular no order of what was not synced.
package durable
