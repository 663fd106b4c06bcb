// Package notify tells people and their programs what happens: every event and
// alarm goes to webhooks, programs and the system's log, also what an earlier run
// was killed with.
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
//   - Everything ends with Run's context. Queues are in memory; what was not
//     delivered by then is delivered after the next start, see below.
//
// # Over a restart
//
// The owner of the events keeps them in a log and numbers them (Event.Position);
// here is known, for each target, up to which number everything is done with: it
// was delivered, or refused or lost and a later delivery has told so, or is below
// the target's severity (Heard). The owner stores that now and then, in a
// transaction that it makes anyway or one of its own at most twice a minute, and
// gives it back to the next run, which reads from the log what comes after it
// (Resume).
//
//   - What is stored lags behind what was delivered, never ahead: a target may
//     get the deliveries of the last half minute before a crash twice, with the
//     same ids, and loses none that the log has.
//   - Replayed events go through windows and queues as they did at first, in
//     order, before any new one, with their own times and ids. How much is told
//     is bounded as ever by the queue; how far back by the log. There is no bound
//     of age, for a host's clock may have been wrong when it began. What is no
//     longer in the log is counted as lost, with the next delivery.
//   - A target is known by its kind and its URL or path, as a hash, for URLs have
//     secrets in them. One whose URL or path was changed takes the place of the
//     one of its kind that is gone: what that had not got goes to it. What a
//     target had not got that is gone without a successor is told to the owner.
//   - A new target begins with the alarms that stand. So does one that lost
//     events. All others have heard of them, or will.
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
// that ran is not run again, whatever its exit code, unless the agent died before
// that was stored.
//
// The system's log is journald, with the same words as fields, or else /dev/log
// in the format of RFC 5424.
package notify
