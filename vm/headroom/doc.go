// Package headroom tells how much memory this host can still give to whoever asks
// for it next, before the kernel has to end a process for lack of it.
//
// That is what the kernel estimates (MemAvailable of /proc/meminfo: free, and what
// it can take back from its caches), and less where a control group above this
// process has a bound: the group's limit without what is in use there, apart from
// files that can be written out and dropped.
//
// And it decides, by that, which copies of guests' memory this host can afford
// (Budget). It must not know what the copies are for, or how one is given up.
//
// Invariants: what is decided depends on what Look and Room are given alone; one copy
// is given up at a time, and none begun that would use up the reserve.
//
// Sources: Linux, Documentation/filesystems/proc.rst,
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
package headroom
