// Package qmp is our transport to QEMU's monitor (QMP over a unix socket) and
// thin typed functions for the commands the product uses.
//
// It speaks go-qemu's words (qmp.Command, qmp.Version; Client.Monitor is a
// qmp.Monitor) but not through its SocketMonitor, which has no deadlines, breaks
// at replies over 64 KiB, stands still at an unread event and loses the class of
// errors.
//
// It must not know about guests' specs, checkpoints, leases, peers or policy: a
// function here sends one command, or the few that only make sense together.
//
// # Invariants
//
//   - One goroutine reads the socket and one writes it. A reply is matched by
//     its id, which no other connection to the same QEMU uses: a reply that comes
//     after its caller gave up, or that belongs to an earlier client, is dropped.
//   - QEMU has at most one in-band command of ours at a time. It would run
//     them one after the other anyway; held back here, a command whose caller
//     gives up is never carried out later, a passed file cannot be mixed up with
//     another's, and there is always room for an out-of-band command (yank).
//   - Every call ends with its context, whatever QEMU does. It ends at once with
//     ErrClosed when QEMU dies.
//   - An unread event blocks nobody. Each subscriber has a bounded queue; what
//     does not fit is counted and reported in place (EventsDropped).
//   - After Close no goroutine of the Client is left.
//
// # What the command's error says
//
//	errors.Is(err, ErrNotSent)   QEMU has never seen the command
//	errors.As(err, **Error)      QEMU refused it: class and description
//	errors.Is(err, ErrClosed)    the connection is gone; outcome unknown unless ErrNotSent
//	context.DeadlineExceeded     and not ErrNotSent: QEMU may still carry it out
//
// # One client per socket
//
// QEMU serves one client on a monitor socket. A second one connects, but gets no
// greeting until the first has left: Dial then ends with its context. The same
// happens while QEMU's main loop hangs in a command of an earlier client.
//
// # Files and device state (measured with QEMU 7.2.22)
//
//   - QEMU takes a file of an fdset only if its access mode is exactly the one
//     it wants: write-only for a save. A memfd (read-write) is reopened.
//   - It truncates the file at each save but writes on at the file's offset:
//     a reused file must be set back to 0, or the next state starts behind a
//     hole. A pipe is refused, as it cannot be truncated.
//   - An fdset removed while the guest is stopped is only marked; its file
//     stays open in QEMU. A second remove-fd after "cont" does close it, as does
//     the end of the last monitor connection (of any socket) of a running guest.
//   - A saved state is loaded from a pipe: newer versions refuse files for some
//     streams. QEMU 7.2 exits when it cannot load the state.
package qmp
