// Package watchdog resets the host if a guest may run on although its lease has
// ended: if its guard cannot freeze it and the agent cannot kill it, or if the
// kernel hangs. A device such as /dev/watchdog does it when it is no longer fed.
//
// A device can be opened by one process only, so one keeper (`vmctl watchdog`) feeds
// it for all guests of an agent. It outlives the agent, as guards do. The agent names
// the guards to it; it attaches to each, and looks at deadline and state.
//
// # When it feeds
//
// A guest endangers the device's food from a little before its deadline,
//
//	early = T + margin - D        T the device's timeout, D what takeovers allow for stopping
//
// until the guard says that every thread of QEMU is stopped, or QEMU is gone, or a
// later deadline is known. The last feed is then at deadline - early at the latest,
// and the reset at deadline + D - margin, before anybody else may run the guest.
// A guard freezes within a millisecond of the deadline, and early is less than T: a
// host that is merely cut off is never reset. With D = 0.3 s a device must take T = 1 s.
// One that takes only longer ones resets later than D after the deadline, by Late.
//
// A thread of QEMU that is stuck in the kernel (D state) at the deadline, for longer
// than about D, resets the host as well: nobody can say that it does nothing.
//
// # Invariants
//
//   - never armed but for guests with a lease; disarmed (magic close, 'V') when the last
//     of them is gone, and when the keeper is asked to end, once no guest needs it;
//   - a device that cannot be disarmed (nowayout) is fed for as long as the keeper lives;
//   - a deadline is only ever learned from the guard that enforces it;
//   - a guard that does not answer is taken by its last deadline;
//   - the device is opened only at a moment when it may be fed.
//
// A keeper that is killed leaves the device armed: the host is reset unless the agent
// starts the next one within T.
//
// The package knows nothing of peers, epochs, or what the agent is about.
package watchdog
