// Package accel finds out whether KVM runs guests on this host.
//
// That /dev/kvm opens proves nothing. On a host that is a virtual machine itself,
// KVM may have no hardware below it, and then emulates the guest's kernel one
// instruction at a time: much slower than QEMU's own translator (TCG), and only
// until it meets an instruction it does not know. On others a timer interrupt
// never comes. A guest hangs there after promising well.
//
// So Prove runs a tiny guest of our own (guest/guest.S) under KVM, started by the
// firmware as real guests are. It enters long mode and does what an operating
// system does first: identification, exceptions, page faults, timer interrupts,
// user mode, a second CPU, and a quarter of a billion instructions in between.
// Only a guest that comes to its end, in time and with every result right, makes
// the verdict "kvm". Everything else makes it "tcg", with the reason.
//
// # Invariants
//
//   - a doubt is a "tcg": slow guests are better than guests that hang;
//   - a trial ends within Bound, whatever QEMU does, and leaves neither a process
//     nor a file;
//   - a verdict is remembered for one boot, kernel, QEMU and firmware; and not at
//     all if it may be the work of a busy host.
//
// The package knows nothing of specs, guests of users, or how they are started.
package accel
