// Package testguest makes the Linux guest of the tests and the demo from Debian
// packages, by name: the cloud kernel, a static busybox, the modules it needs,
// our workload (package work) and, in an initramfs of its own, the guest agent
// (guest.agent=1). It boots in seconds: the kernel is unpacked beforehand. It
// also looks at the guest's disk when the guest is off.
//
// It must not know how a guest is run, and the product must not import it.
//
// Invariants: what Build returns is whole; two builders at once make one
// image; nothing is fetched but from Debian's packages.
package testguest
