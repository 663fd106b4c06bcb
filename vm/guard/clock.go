package guard

import (
	"math"

	"golang.org/x/sys/unix"
)

// Forever is the deadline of a guest that needs no lease.
const Forever int64 = math.MaxInt64

// Now is the time leases are measured in: CLOCK_BOOTTIME in nanoseconds. It goes
// on during suspend and is never set back. It means nothing on another host.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// The clock exists since Linux 2.6.39 and the call has no other way to
		// fail; the end of time is the answer that lets no lease live on.
		return math.MaxInt64 - 1
	}
	return ts.Nano()
}

// alarm is a timerfd on CLOCK_BOOTTIME for absolute times.
type alarm struct{ fd int }

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	return alarm{fd}, err
}

// set arms the alarm for the absolute time at and every interval ns after it.
// Forever disarms it.
func (a alarm) set(at, interval int64) error {
	var spec unix.ItimerSpec
	if at != Forever {
		spec.Value = unix.NsecToTimespec(max(at, 1)) // zero would disarm
		spec.Interval = unix.NsecToTimespec(interval)
	}
	return unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil)
}

// clear takes the expiry so that the alarm is not reported again for it.
func (a alarm) clear() {
	var count [8]byte
	_, _ = unix.Read(a.fd, count[:]) // EAGAIN: re-armed meanwhile
}
