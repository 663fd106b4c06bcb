// Package e2e proves the product from outside: agents as processes, hosts as
// network namespaces, real guests, real kills. The harness is package lab.
//
// It must not reach into the product's packages for what a user could not see.
// Every test watches from outside that never two QEMUs execute the guest.
//
// A test has a lab and a guest of its own while it runs. Most get both from the
// test before (sharedBench), which mends them at its end; those to which their
// history would matter make new ones (newBench).
package e2e
