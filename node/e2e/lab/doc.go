// Package lab makes two hosts and a witness out of network namespaces, for
// end-to-end tests and the demo: real agents, real QEMU, real power cuts.
//
// A switch namespace joins the hosts by a bridge; tests look at guests from
// there, as a client on the network would. Everything has the lab's own id and
// is removed by Close, or by a janitor process if this process dies.
//
// It must not be imported by the product.
package lab
