// Package porter lets handshakes of a witness be made by a process of their
// own, the porter, which there is only while somebody is at the door.
//
// The witness keeps the listening socket, its votes and every link; the porter
// takes the socket to accept from, makes TLS and the hello, proves who is who,
// and hands the socket and the keys of its records over. What a handshake needs
// is gone with the porter when calm returns, and no stranger's bytes are read
// by the process that votes.
//
// Keeper is the witness's side: it starts the porter when somebody knocks, and
// believes nothing of the form of what it says. Main is the porter's. Both are of one
// program, so what passes between them has no versions.
//
// It must not decide about leases, nor know what a link says.
//
// Invariants: a porter that ends, hangs or talks nonsense costs the handshakes
// under way and nothing else, and leaves nothing behind; who knocks meanwhile
// waits in the socket's queue; the next porter waits the longer the more in a
// row ended badly; a link's keys are in one process at a time.
package porter
