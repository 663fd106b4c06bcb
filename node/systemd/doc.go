// Package systemd asks the service manager what it is about to do with the host
// and with the agent's own service, and for more time.
//
// It must not know guests or leases. Without systemd every answer is the one of
// a host that stays up: a host whose service manager cannot be asked is not
// taken for one that goes down.
package systemd
