// Package peer makes the connections between the two nodes of a cluster and to
// the witness: identities, mutual TLS, joining with a one-time token.
//
// It knows certificates, tokens and connections. It must not know guests,
// leases or the database: who may join and what a connection carries are
// decided by the functions it is given.
//
// Invariants:
//   - nothing but a join or an enrolment, each with its own secret, is spoken
//     with a peer whose certificate this cluster's authority did not sign;
//   - validity of a certificate never depends on a wall clock: hosts at the
//     edge boot in 1970 and must still find each other. A node that left is
//     kept out by membership, not by expiry;
//   - a connection has one purpose, named in its handshake.
package peer
