// Package memory finds and copies the changed pages of a guest's RAM from
// outside QEMU, and carries them in chunks.
//
// Guest RAM is a shared named file, normally on tmpfs. A Shadow holds what the
// peer has or is about to have; Scan compares the live Image with it page by
// page, copies what differs and notes the page numbers in a Delta. The data of
// a checkpoint is then read from the shadow, after the guest runs again: the
// shadow is exactly the RAM of the pause until the next Scan. Scan therefore
// copies each changed page once and allocates nothing that grows with the guest.
//
// A Finder decides which pages to compare: all of them, or with a Tracker those
// that the kernel's soft-dirty bits of QEMU name. Its rules are in situation.go.
// Pages that were written for sure are copied in the pause without comparing,
// as long as a sample of them shows that most writes change something.
//
// The package knows pages and bytes. It must not know QEMU, checkpoints'
// numbers, disks, or how chunks travel.
//
// Invariants:
//   - a page whose shadow copy changed is in the Delta, also when Scan fails
//     half-way: its bit is set before the copy;
//   - a page that the Tracker does not name is as in the shadow: bits are cleared
//     only after a Scan that succeeded, with the guest stopped all the time
//     (Doubt says that it was not), and the first miss ends its use;
//   - a Delta only grows until its owner resets it, so the pages of a
//     checkpoint that was lost are sent again with the next one;
//   - live RAM is mapped read-only: nothing here ever writes to it, and a hole
//     of it is not turned into memory by looking (on tmpfs, in blocks of 256 KiB);
//   - a RAM file cut short under a Scan is an error, not a crash;
//   - a chunk that decodes is whole (checksum) and stays inside the image.
package memory
