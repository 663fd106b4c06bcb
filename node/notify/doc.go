// Package notify tells people and their programs what happens: every event and
// alarm goes to webhooks, programs and the system's log.
//
// It must not know the agent's journal, guests or leases, and nothing of the
// agent may wait for it. An Event is a type of its own.
//
// # Invariants
//
//   - Notify never blocks: it waits for no network, program or disk.
//   - Each target has a queue and a goroutine of its own; a target that is slow or
//     away holds no other one up.
//   - A target gets its events in order. One that cannot be delivered is tried
//     again, with back-off, before any later one.
//   - The same event (node, kind, guest and state) is told at once and then once a
//     window at most, with how often it was repeated. A change of an alarm's state
//     is never held back.
//   - A full queue loses the oldest plain events first, then alarms that have begun
//     and ended without the target ever hearing of them; never only one end of an
//     alarm. The next delivery says how many were lost.
//   - Everything ends with Run's context. Queues are in memory: what was not
//     delivered by then is counted in the log. The agent's own event log has it.
//
// # A delivery
//
// One JSON object (Delivery). A state of "on" or "off" is the beginning or the end
// of an alarm. A delivery may arrive twice, when its answer was lost; its id stays
// the same.
//
// Webhooks get it by POST and accept it with a status of 2xx. Redirects are not
// followed, because they would take the message to whoever the answer names. A
// status of 400, 413 or 422 refuses this one delivery, which then counts as
// dropped; everything else is tried again. With a secret the headers are:
//
//	Vmctl-Delivery: ID
//	Vmctl-Timestamp: SECONDS         (of this attempt)
//	Vmctl-Signature: sha256=HEX      HMAC-SHA256(secret, SECONDS + "." + body)
//
// Programs get it on standard input, and its parts in VMCTL_ID, VMCTL_KIND,
// VMCTL_SEVERITY, VMCTL_VM, VMCTL_NODE, VMCTL_MESSAGE, VMCTL_TIME, VMCTL_STATE,
// VMCTL_REPEATED and VMCTL_DROPPED, and nothing of the agent's environment. One
// that ran is not run again, whatever its exit code.
//
// The system's log is journald, with the same words as fields, or else /dev/log
// in the format of RFC 5424.
package notify
