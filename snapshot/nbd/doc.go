// Package nbd speaks the part of the Network Block Device protocol that QEMU
// uses: a server (newstyle, fixed; simple replies) whose exports are Devices,
// and a client that reads an export sparsely (structured replies).
//
// It knows bytes, offsets and the protocol. It must not know guests, replicas,
// links or why a device answers late.
//
// Invariants:
//   - a request is answered exactly once, in any order, or the connection ends;
//   - nothing the other end says makes the server allocate more than
//     MaxRequest bytes for one request, or hold more than maxInFlightBytes
//     of payload for one connection;
//   - a request that reaches outside the export never reaches the Device;
//   - of a write that is handed on in pieces (Starter), all are handed on, in order,
//     and it is answered after all of them, or the connection ends;
//   - an exclusive export has one connection in transmission: a new one waits
//     until every request of the one before has been answered by the Device,
//     so a late request can never land on top of a newer one.
package nbd
