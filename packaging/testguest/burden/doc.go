// Command burden is what the test guest does in benches, in place of its
// workload: what it is told over HTTP, and nothing else.
//
// /write writes to the second disk, /sqlite has Debian's sqlite3 commit
// transactions on the first, /dirty writes to memory. It must not know what is
// measured.
package main
