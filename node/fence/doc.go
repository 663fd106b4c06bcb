// Package fence powers the other node off with the fence agents of the
// ecosystem (package fence-agents: fence_ipmilan, fence_redfish, power strips)
// and says so only when the device confirmed it.
//
// It must not know guests, leases or why a node is fenced, and it decides
// nothing. It has no drivers of its own and keeps no state: a Device is a value,
// its methods may be called at any time from any goroutine.
//
// # What counts as off
//
// Off returns nil only after the agent accepted action=off (exit code 0) and
// then answered action=status with exit code 2 *and* the line "Status: OFF".
// The code alone proves nothing: a missing interpreter, a shell's syntax error
// and bad arguments end with 2 as well. Every other outcome is an error, and
// whoever gets one must act as if the other node were alive.
//
// An off that failed is asked again until the time is up (a management
// controller that does not answer is the usual trouble); one that was accepted
// is not, because some devices start their own delay anew each time.
//
// # What is refused before anything is shot
//
// The agent's metadata is read first, without secrets. Refused are agents
// without a status (nothing could be confirmed), agents without a reboot action
// (these are the fabric agents such as fence_scsi: they cut a node from shared
// storage, while guests on its own disks run on), and options the agent does
// not know: it would ignore a mistyped plug and switch another one off.
//
// # Secrets
//
// Options go to the agent's standard input, never into its arguments or its
// environment. Secrets come from files that only their owner may read; they are
// read at every call, so a new password needs no restart. What agents print is
// logged with the secrets taken out; agents do print them, for one when they
// warn of an option they do not know. What an agent hands to programs of its own
// is up to the agent (fence_ipmilan gives ipmitool the password as an argument).
//
// # Processes
//
// An agent has a process group of its own, which is ended (SIGTERM, then
// SIGKILL) when its time is up and cleared of leftovers when it exits. It does
// not outlive this process.
package fence
