// Package headroom tells how much memory this host can still give to whoever asks
// for it next, before the kernel has to end a process for lack of it.
//
// That is what the kernel estimates (MemAvailable of /proc/meminfo: free, and what
// it can take back from its caches), and less where a control group above this
// process has a bound: the group's limit without what is in use there, apart from
// files that can be written out and dropped.
//
// It must not know guests, or what is done about too little.
//
// Sources: Linux, Documentation/filesystems/proc.rst,
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
package headroom
