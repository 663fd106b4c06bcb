// Package qmptest is a QEMU monitor for tests: a real unix socket, scripted
// answers. Tests that run against it run against the real thing unchanged.
//
// It behaves as QEMU does where that matters to a client: one client at a time,
// in-band commands one after the other, out-of-band ones beside them, a passed
// file replaces the one before that nobody has taken, nothing but the greeting
// before qmp_capabilities.
//
// Server is the script: Handle, Return, Fail, Emit, Send (garbage), Freeze, Kill.
// Machine adds handlers for a small guest: run states, fdsets, device state.
//
// It knows nothing of the product but package qmp's error type.
package qmptest
