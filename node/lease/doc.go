// Package lease carries the lease protocol's messages between nodes and to the
// witness, on connections of their own.
//
// It knows how ha's messages are framed and who may send what. It must not
// look into them: ha decides, this package delivers or loses them.
//
// Invariants: a message is delivered only if its sender is the one that the
// connection's certificate proved; nothing here ever waits for a slow or dead
// target, and what was queued for a link that broke is thrown away: a renewal
// that is late says a wrong thing.
package lease
