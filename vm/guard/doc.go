// Package guard is the small process that is QEMU's parent, and the client the
// agent speaks to it with. It is the one thing that enforces a guest's lease.
//
// A guard runs as `vmctl guard CONFIGFILE`, one per guest, in a session or
// systemd unit of its own. It outlives the agent: guests run on while the agent
// restarts. When the lease ends it freezes QEMU by itself, on time, whether or
// not an agent is alive, stopped, or busy. QEMU cannot outlive its guard: the
// kernel kills it (parent death signal).
//
// # Lease
//
// A guard has one epoch and one deadline (CLOCK_BOOTTIME nanoseconds, as Now
// returns them). At the deadline every thread of QEMU is stopped, and stopped
// again every 10 ms while the lease is expired. A later deadline for the same
// epoch thaws the same process: nothing is lost. Revoke and Kill end QEMU. A guest
// whose isolation is Stop is frozen and at once killed: there is no thaw.
//
// # Pauses
//
// A checkpoint pause that the agent does not finish is ended by the guard, which
// then lets the guest continue through its own QMP socket. The order for the agent:
//
//	BeginPause(id, bound); QMP stop; save; copy; QMP cont; ended = EndPause(id)
//
// The checkpoint is good only if ended is false: a guard marks the pause ended
// before it lets the guest run. Begin a pause only for a guest that runs: one the
// user paused needs none, and must get none. To leave a guest stopped on purpose
// (before a handover), call EndPause while it is stopped: after an answer of
// false the guard never lets that guest continue.
//
// # Protocol, version 1
//
// A SOCK_SEQPACKET unix socket; one message per packet, fixed text of at most
// 1024 bytes, words parted by one space, numbers decimal without leading zeros.
//
//	request: 1 TAG VERB [NUMBER...]      TAG is chosen by the client, not 0
//	reply:   1 TAG ok [WORD...]          or  1 TAG error CODE
//	event:   1 0 exit PID CODE SIGNAL UNIXNANO REASON
//
//	renew EPOCH DEADLINE      ok DEADLINE   the deadline now in force
//	claim EPOCH DEADLINE      ok DEADLINE   a standby becomes the owner's guest
//	revoke EPOCH | kill       ok            SIGKILL sent; the exit event follows
//	terminate BOUND           ok            SIGTERM, SIGKILL after BOUND ns
//	status                    ok KEY=VALUE...   unknown keys are to be ignored
//	pause-begin ID BOUND      ok            BOUND in ns
//	pause-end ID              ok ENDED      ENDED 1: the guard ended it before
//	isolation N               ok            0 freeze, 1 stop
//
// A guard of an older vmctl must be understood by a newer agent: keys and verbs
// are added, never changed; another version number is answered "error version".
//
// # Invariants
//
//   - expiry is checked before every message is read, so no renewal can let
//     a guest run on past a deadline that has already been missed;
//   - the thread of the loop does nothing that can block: logging, QMP and files
//     are left to other goroutines until QEMU is gone;
//   - what runs at a deadline has run before, without effect, and is locked in memory;
//   - a deadline is never moved to an earlier time, except from Forever;
//   - a standby is neither thawed nor continued: before its claim there is no
//     renewal, no pause and so no `cont`;
//   - while a `cont` of the guard may still be on its way, no pause can begin;
//   - two guards never run for one socket path (a file lock held for life).
//
// The package knows nothing of specs, disks, peers, or who decides on epochs.
// Only QEMU's own threads are frozen, not processes QEMU may have started; and QEMU
// must not change its user (-run-with user=, -runas): the kernel forgets the death
// signal then.
package guard
