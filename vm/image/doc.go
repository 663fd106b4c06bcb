// Package image judges files from which disks are made: is it there, is it a
// disk image, does it stand alone, how large is the disk in it.
//
// It must not know of guests or write anything; package disk copies.
//
// Invariant: an image that Inspect accepts consists of regular files of this
// host only, all of which exist. Formats that fetch from the network or from
// devices are refused, as a copy of them could hang or differ every time.
package image
