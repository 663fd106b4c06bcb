// Package video carries the memory of a guest's screen. QEMU keeps it to itself:
// it is neither in the guest's memory file nor in the state of the devices.
//
// A Mirror copies it, from outside QEMU, to where the memory file goes on behind
// the guest's RAM, so that it travels and is kept as RAM is; Insert puts it
// into a device state, from where QEMU loads it as it loads memory from a
// migration.
//
// It must not know what a checkpoint is, or where a guest is resumed.
//
// Invariants: after Refresh, with the guest standing still all the time, the
// copy is what the screen's memory is; what QEMU reads of a process is the
// process that answered its monitor.
package video
