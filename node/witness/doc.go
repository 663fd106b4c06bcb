// Package witness is the tiny third voter, `vmctl witness run`: it holds
// epochs and leases of any number of clusters, never guests.
//
// It wires ha.Witness to connections and to the store. It must not decide
// anything: ha does.
//
// Invariants: a vote is durable before its message leaves; a witness that lost
// its state directory comes back under a new id, so that no cluster takes its
// empty memory for the old one's; a cluster is served only after it enrolled
// with a token that this witness gave out, and each token is good once.
package witness
