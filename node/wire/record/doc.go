// Package record is the record layer of TLS 1.3 in a hundred bytes a
// connection. crypto/tls makes the handshake and proves who is who; after it,
// this package seals and opens the records with the traffic secrets that the
// handshake agreed on. On the wire it is TLS 1.3 as before.
//
// It is for an end that holds thousands of quiet connections: crypto/tls keeps
// about ten kilobytes for each, and a goroutine must wait in it.
//
// It knows records, not frames. It must not be used for bulk data: ciphers are
// made anew for every record.
//
// Invariants:
//   - a record counts once, in its place: the sequence number is part of its
//     nonce, and the first that does not open ends the connection;
//   - a connection ends before its sequence numbers come near the cipher's
//     limit; keys are changed by a new handshake, never in mid-connection;
//   - a secret leaves this package in one form only, Pack's, which is for the
//     process that goes on with the connection, and which leaves none behind.
package record
