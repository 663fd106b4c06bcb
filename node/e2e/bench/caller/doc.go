// Package caller calls a guest all the time over UDP, as a client on its
// network would, and knows when which answer came.
//
// It must not know who runs the guest. The guest's hardware address is fixed
// for the caller (Pin), so that what is measured is the guest's silence and not
// the second that Linux waits between two questions for an address.
package caller
