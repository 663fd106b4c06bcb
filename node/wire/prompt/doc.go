// Package prompt reads and writes sockets that do not block, with system calls
// that the Go scheduler is not told of.
//
// Before a system call that may block Go makes ready for that: among other things it
// wakes its watching thread, if the process was idle until now, which takes longer
// than reading a message does, and that thread looks around every 20 us from then
// on. For a process that is idle between two messages that is most of what a message
// costs. A socket's descriptor never blocks (net's is in non-blocking mode), so there
// is nothing to make ready for.
//
// It knows sockets. It must not be used for files: those block.
package prompt
