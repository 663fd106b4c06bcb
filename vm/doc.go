// Package vm is one guest on this host: what was asked for (Spec), where its
// files live (Layout), the QEMU line that runs it (Cmdline) and the running
// thing itself (Guest).
//
// It must not know about peers, checkpoints, leases or owners: it starts and
// stops what it is told to, and says what happened in QEMU's words. Whether a
// guest may run here is decided elsewhere and enforced by the guard.
//
// Invariants:
//   - A stored Spec is complete (Defaults). Cmdline reads nothing but its
//     arguments, so the same spec gives the same virtual hardware on every
//     host: equal device ids, PCI addresses, MAC addresses and block nodes.
//     Only paths and disk formats differ, and no device state holds those.
//   - Start leaves either a running guest or nothing.
//   - Two guests never share a disk image file.
package vm
