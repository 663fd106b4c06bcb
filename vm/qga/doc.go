// Package qga speaks to the QEMU guest agent inside a guest, over the unix
// socket at the other end of its virtio-serial port.
//
// It must not know what a guest is for, whether it is protected, or when its
// clock is to be set: it carries one command and its answer.
//
// Invariants:
//   - Every call ends with its context, or after Bound: there may be no agent,
//     the guest may be stopped, or what answers may not be an agent.
//   - One command at a time. The port is one stream without message borders of
//     its own; an answer belongs to the command before it.
//   - A client begins with guest-sync-delimited under a number that nobody used:
//     what an earlier client, or the guest before it was resumed, left in the
//     stream is passed over and never taken for an answer.
//   - After an error that is not the agent's own word (*Error) the client is
//     closed: what comes next in the stream is unknown.
//   - What the guest sends is a stranger's: lines and what is passed over are
//     bounded, and nothing of it is kept but the answer.
package qga
