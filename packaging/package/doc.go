// Package packages builds the .deb and the .rpm: the static program, its units,
// configuration, manual page, completion and licences.
//
// It must not know what vmctl does; the manual's commands come from the program's
// own --help. What goes where stands in nfpm.yaml; nfpm itself is fetched once at a
// fixed version, outside the module's dependencies.
//
// Invariants: the same commit, version and Go give the same bytes, whatever the
// directory, umask or time (tests build twice). No script uses the network, starts
// what did not run, stops guests or deletes what may be a guest's disk.
package packages
