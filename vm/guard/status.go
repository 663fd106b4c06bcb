package guard

import (
	"fmt"
	"strconv"
	"strings"
)

// Status is what a guard says of itself and its guest. Times are CLOCK_BOOTTIME ns.
type Status struct {
	GuardPID  int
	PID       int    // of QEMU
	StartTime uint64 // of QEMU: field 22 of /proc/PID/stat, clock ticks since boot
	UUID      string // of the guest
	LaunchID  string // of the Launch this guard was started with

	Epoch    uint64
	Deadline int64
	Standby  bool // waits for Claim

	Frozen   bool   // the lease is expired, the stop has been sent to every thread
	Stopped  bool   // frozen, and the kernel confirms that no thread runs any more
	Freezes  uint64 // how often the deadline was missed
	FreezeNS int64  // last freeze: from the deadline until the stop was sent to every thread
	Ending   bool   // QEMU is being ended

	Pause      uint64 // open checkpoint pause, 0: none
	PauseEnded bool   // the open pause was ended by the guard
	LastPause  uint64 // highest pause id used so far; the next must be higher
	Resuming   bool   // a `cont` of the guard may be on its way

	MemoryLocked bool // mlockall worked: the guard cannot be held up by swap
	RealTime     bool // SCHED_FIFO was granted: other load cannot hold it up
}

func (s *Status) append(b []byte) []byte {
	number := func(key string, n uint64) {
		b = append(append(append(b, ' '), key...), '=')
		b = strconv.AppendUint(b, n, 10)
	}
	flag := func(key string, v bool) {
		var n uint64
		if v {
			n = 1
		}
		number(key, n)
	}
	word := func(key, v string) {
		b = append(append(append(append(b, ' '), key...), '='), v...)
	}
	number("guard", uint64(s.GuardPID))
	number("pid", uint64(s.PID))
	number("start", s.StartTime)
	word("uuid", s.UUID)
	word("launch", s.LaunchID)
	number("epoch", s.Epoch)
	number("deadline", uint64(s.Deadline))
	flag("standby", s.Standby)
	flag("frozen", s.Frozen)
	flag("stopped", s.Stopped)
	number("freezes", s.Freezes)
	number("freeze-ns", uint64(s.FreezeNS))
	flag("ending", s.Ending)
	number("pause", s.Pause)
	flag("pause-ended", s.PauseEnded)
	number("last-pause", s.LastPause)
	flag("resuming", s.Resuming)
	flag("locked", s.MemoryLocked)
	flag("realtime", s.RealTime)
	return b
}

// decodeStatus reads KEY=VALUE words. Keys of later versions are skipped.
func decodeStatus(words []string) (Status, error) {
	var s Status
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return Status{}, fmt.Errorf("%w: status word %.40q", ErrMalformed, w)
		}
		if err := s.set(key, value); err != nil {
			return Status{}, fmt.Errorf("%w: status word %.40q", ErrMalformed, w)
		}
	}
	if s.PID <= 0 || s.GuardPID <= 0 {
		return Status{}, fmt.Errorf("%w: status without process ids", ErrMalformed)
	}
	return s, nil
}

func (s *Status) set(key, value string) error {
	var err error
	number := func(to *uint64) { *to, err = strconv.ParseUint(value, 10, 64) }
	signed := func(to *int64) { *to, err = strconv.ParseInt(value, 10, 64) }
	pid := func(to *int) {
		var n int64
		n, err = strconv.ParseInt(value, 10, 32)
		*to = int(n)
	}
	flag := func(to *bool) { *to, err = strconv.ParseBool(value) }
	switch key {
	case "guard":
		pid(&s.GuardPID)
	case "pid":
		pid(&s.PID)
	case "start":
		number(&s.StartTime)
	case "uuid":
		s.UUID = value
	case "launch":
		s.LaunchID = value
	case "epoch":
		number(&s.Epoch)
	case "deadline":
		signed(&s.Deadline)
	case "standby":
		flag(&s.Standby)
	case "frozen":
		flag(&s.Frozen)
	case "stopped":
		flag(&s.Stopped)
	case "freezes":
		number(&s.Freezes)
	case "freeze-ns":
		signed(&s.FreezeNS)
	case "ending":
		flag(&s.Ending)
	case "pause":
		number(&s.Pause)
	case "pause-ended":
		flag(&s.PauseEnded)
	case "last-pause":
		number(&s.LastPause)
	case "resuming":
		flag(&s.Resuming)
	case "locked":
		flag(&s.MemoryLocked)
	case "realtime":
		flag(&s.RealTime)
	}
	return err
}
