// Package e2e proves the product from outside: agents as processes, hosts as
// network namespaces, real guests, real kills. The harness is package lab.
//
// It must not reach into the product's packages for what a user could not see.
// Every test watches from outside that never two QEMUs execute the guest.
package e2e
