// Package work is what the test guest does all day, and how its traces are
// checked: a counter, a hash chain over the guest's memory, and a log of
// records on its disks.
//
// Memory, chain and disks all tell the same number, so a guest that was put
// together from pieces of different instants finds out by itself, at its next
// step, and says so for ever after (Status.Broken).
//
// The package must not know how the guest is booted or who watches it. It is
// used on both sides: inside the guest by the workload, outside by the tests
// that read the guest's disks after it is gone.
//
// Invariants:
//   - The content of every page of the Memory follows from the token, the
//     page's number and how many pages were written so far.
//   - In the Log the place after the last record is zero.
//   - A record proves itself: checksum, link to the one before, memory sample.
package work
