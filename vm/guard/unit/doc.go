// Package unit starts guards as transient systemd units, so that a guest is in no
// control group of the agent's service: `systemctl restart vmctl` leaves it alone,
// and `systemctl status vmctl-guest-...` shows it.
//
// The unit is of Type=notify: it counts as started when QEMU was started, and a
// failed start leaves nothing behind. Stopping the unit (also at shutdown of the
// host) sends SIGTERM to the guard, which ends QEMU in order within the guest's stop
// timeout; systemd kills what is left after that.
//
// The package knows nothing of leases and epochs. On hosts without systemd, use
// guard.Session.
package unit
