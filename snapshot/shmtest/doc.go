// Package shmtest gives tests, or all tests of a package, directories on tmpfs,
// where an fsync costs nothing, and leaves nothing there: what a run that was
// killed left is removed by the next one. It is for tests only.
package shmtest
