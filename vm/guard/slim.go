package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// slim gives back what only the start of the program needed, before what is there is
// locked for good: garbage, and the pages of the program that initialised the packages
// of other commands. The code that runs at a deadline is fetched again at once; what
// else is needed comes back when it is.
func slim() error {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	var errs []error
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var mode string
		// Only what can be read again from the file: nothing that can be written.
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || mode[:2] != "r-" || !strings.HasSuffix(lines.Text(), " "+exe) {
			continue
		}
		errs = append(errs, advise(from, to, unix.MADV_DONTNEED))
		if mode == "r-xp" {
			errs = append(errs, fetch(from, to))
		}
	}
	return errors.Join(errs...)
}

// fetch reads the code in that a deadline needs. The linker puts the runtime first,
// the packages that stand on it behind it, and keeps those of one package together.
func fetch(text, end uintptr) error {
	entry := func(f any) uintptr { return reflect.ValueOf(f).Pointer() }
	const page = 4096
	var errs []error
	for _, code := range [][]uintptr{
		{text, entry(time.Now)},
		{entry(unix.EpollWait), entry(unix.PidfdSendSignal), entry(unix.Tgkill), entry(unix.Waitid), entry(unix.TimerfdSettime)},
		{entry((*child).toAll), entry((*child).stopped), entry((*loop).run), entry((*loop).extend), entry((*loop).kill), entry(Now), entry(alarm.set)},
	} {
		low, high := end, text
		for _, at := range code {
			low, high = min(low, at), max(high, at)
		}
		errs = append(errs, advise(low&^(page-1), min(end, high&^(page-1)+2*page), unix.MADV_POPULATE_READ))
	}
	return errors.Join(errs...)
}

func advise(from, to uintptr, advice int) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, uintptr(advice)); errno != 0 {
		return fmt.Errorf("advice %d: %w", advice, errno)
	}
	return nil
}
