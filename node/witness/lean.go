package witness

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// garbage is how much the heap may grow over what is in use, in percent, before
// it is collected: a witness has little to do and should be small.
const garbage = 25

// calmAfter is how many sweeps without a new or ended connection make it worth
// giving back what handshakes needed.
const calmAfter = 5

// Lean makes the process small, for one that is nothing but a witness.
func Lean() { debug.SetGCPercent(garbage) }

// tidy gives back memory that the start or a wave of handshakes needed.
func tidy() {
	debug.FreeOSMemory()
	_ = dropFilePages()
}

// sweep ends links that are silent, once a second, and tidies up when calm
// returns.
func (p *loop) sweep(now time.Time) {
	if now.Sub(p.swept) < time.Second {
		return
	}
	p.swept = now
	for _, l := range p.links {
		l.frames = 0
		if now.Sub(l.heard) > silence {
			p.drop(l, fmt.Errorf("nothing came for %s", silence))
		}
	}
	switch {
	case p.changed:
		p.changed, p.calm = false, 0
	case p.calm < calmAfter:
		if p.calm++; p.calm == calmAfter && p.tidy != nil {
			p.tidy()
		}
	}
}

// dropFilePages lets go of the pages of files that are mapped and were needed
// once: the program's code for its start, the store for loading it. What is
// needed again comes back from the page cache. Only mappings that cannot be
// written and hold no page of this process's own are touched.
func dropFilePages() error {
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer maps.Close()
	var drop [][2]uintptr
	var start, end uintptr
	candidate := false
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			_, err := fmt.Sscanf(fields[0], "%x-%x", &start, &end)
			candidate = err == nil && fields[1][1] != 'w' && fields[4] != "0" // an inode
		case candidate && fields[0] == "Anonymous:":
			if fields[1] == "0" {
				drop = append(drop, [2]uintptr{start, end})
			}
			candidate = false
		}
	}
	for _, m := range drop {
		// By address: these are not the Go heap's.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("let go of file pages: %w", errno)
		}
	}
	return nil
}
