// Command witness measures what one witness costs that serves many pairs. It is
// `make bench-witness`.
//
// The witness is the real program in a process of its own. The load is pairs of
// real lease cores on real lease links with identities of their own; the two
// nodes of a pair hear each other without a network, so that everything on the
// loopback of this program's own network namespace is the witness's traffic.
package main
