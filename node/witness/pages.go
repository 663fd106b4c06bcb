package witness

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is a part of the address space.
type mapping struct{ start, end uintptr }

// filePages finds the mappings of files that cannot be written and hold no page
// of this process's own: the program's code, what it knows at its start, the
// store.
func filePages() (found []mapping, err error) {
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	var m mapping
	candidate := false
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			_, err := fmt.Sscanf(fields[0], "%x-%x", &m.start, &m.end)
			candidate = err == nil && fields[1][1] != 'w' && fields[4] != "0" // an inode
		case candidate && fields[0] == "Anonymous:":
			if fields[1] == "0" {
				found = append(found, m)
			}
			candidate = false
		}
	}
	return found, nil
}

// dropFilePages lets go of the pages of files that were needed once: the
// program's code for its start, the store for loading it. What is needed again
// comes back from the page cache.
func dropFilePages() error {
	files, err := filePages()
	if err != nil {
		return err
	}
	for _, m := range files {
		// By address: these are not the Go heap's.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("let go of file pages: %w", errno)
		}
	}
	return nil
}

// What <linux/userfaultfd.h> calls these.
const (
	uffdUserModeOnly = 1          // open: no faults of the kernel's own are to be seen
	uffdAPI          = 0xaa       // the only version
	uffdWPAsync      = 1 << 15    // feature: no fault is ever reported
	uffdModeWP       = 1 << 1     // register: for write protection
	uffdioAPI        = 0xc018aa3f // ioctls
	uffdioRegister   = 0xc020aa00
)

// mapSingly has the kernel map pages of files one at a time. It maps sixteen
// around each that is touched, if they are in the page cache: for a small part of
// a large program, used here and there, three of four that nobody asked for. It
// leaves that be where a userfaultfd is registered for write protection. None is
// ever protected and, being asynchronous, none would be reported: nobody reads
// the descriptor, which stays open for the life of the process. A kernel that
// does not know this (before 6.7), or a sandbox that forbids it, maps on.
func mapSingly() error {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return fmt.Errorf("map pages of files one at a time: %w", errno)
	}
	api := struct{ api, features, ioctls uint64 }{api: uffdAPI, features: uffdWPAsync}
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, uffdioAPI, uintptr(unsafe.Pointer(&api)))
	if errno != 0 {
		_ = unix.Close(int(fd))
		return fmt.Errorf("map pages of files one at a time: %w", errno)
	}
	files, err := filePages()
	for _, m := range files {
		part := struct{ start, length, mode, ioctls uint64 }{uint64(m.start), uint64(m.end - m.start), uffdModeWP, 0}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uffdioRegister, uintptr(unsafe.Pointer(&part))); errno != 0 {
			return fmt.Errorf("map pages of files one at a time: %w", errno)
		}
	}
	return err
}
