// Package burdened is a lab with a guest that does what a bench tells it, and
// whose QEMU has a monitor for the bench beside the agent's and the guard's.
package burdened
