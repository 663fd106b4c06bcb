// Package disk makes and looks after disk image files with qemu-img: create,
// copy from an image, inspect, check, grow, remove.
//
// It must not know of guests, specs or directories: it gets paths.
//
// Invariants:
//   - A file under its final name is complete and on stable storage. Work in
//     progress has a name that ends in ".partial" and is removed on failure and
//     when the context ends.
//   - Nothing existing is ever overwritten.
//   - qemu-img is always told the format. It is guessed only by Info, which
//     reads.
package disk
