// Package migrate is the room for moving a running guest between nodes:
// Source, Destination, Phase and Progress, in the field's own words (reservation,
// iterative pre-copy, stop-and-copy, commitment, activation).
//
// Nothing stands here yet: a guest changes its node by takeover only. It will
// declare the small interfaces it needs of QEMU and of the link, and must not
// know leases, the store or how the peer is found. Until the handover the
// source goes on whatever fails; after it the destination owns the guest.
package migrate
