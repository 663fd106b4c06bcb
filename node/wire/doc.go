// Package wire frames messages between vmctl nodes and shakes hands on a new
// connection.
//
// A frame is a 32-bit big-endian length followed by two msgpack values: the
// kind (a small unsigned integer) and the body. Every package owns its kinds
// and bodies; wire knows none of them but the three of its own handshake.
//
// Invariants:
//   - a frame longer than the limit is refused before a byte of it is stored;
//   - a length inside a frame makes no more room than the bytes that follow it;
//   - a malformed frame ends the connection, it is never skipped: after one
//     the position in the stream is not known;
//   - both ends speak a version that both know, or the connection ends with a
//     message that names the two ranges. One version back is understood.
package wire
