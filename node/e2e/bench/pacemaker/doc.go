// Package pacemaker makes the pair that vmctl is compared with: two hosts of
// the lab that are containers with systemd, corosync, pacemaker, libvirt and
// the resource agent VirtualDomain, all from Debian's packages and as they come,
// the guest's disk on a directory that both share, and a power switch that a
// fence agent talks to over the network.
//
// What was changed from Debian's defaults is in files/ and in layer.go, with the
// reason. Everything is made to be fair to pacemaker: fencing succeeds at once,
// nothing delays it, shared storage never fails.
//
// Hosts lose power as the lab's hosts do. Containers, mounts and control groups
// go with the lab, also when this process is killed.
package pacemaker
