package guard

import (
	"errors"
	"fmt"
)

// Answers of a guard. They come wrapped: test with errors.Is.
var (
	// ErrStaleEpoch: the guard's guest has a later epoch than the one given.
	ErrStaleEpoch = errors.New("stale epoch")
	// ErrUnknownEpoch: the epoch given is higher than the one the guest runs under.
	ErrUnknownEpoch = errors.New("unknown epoch")
	// ErrPastDeadline: the deadline given has already passed.
	ErrPastDeadline = errors.New("deadline has passed")
	// ErrGone: the guard or its QEMU has ended, or is being ended.
	ErrGone = errors.New("guest process is gone")
	// ErrPauseBusy: a pause is open, or the guard is still ending one.
	ErrPauseBusy = errors.New("a pause is still under way")
	// ErrPauseUsed: this pause id has been used before.
	ErrPauseUsed = errors.New("pause id was used before")
	// ErrPauseUnknown: no such pause was begun, or it was ended long ago.
	ErrPauseUnknown = errors.New("unknown pause")
	// ErrNotStandby: a claim for a guest that is not a standby (any more).
	ErrNotStandby = errors.New("not a standby")
	// ErrUnclaimed: a renewal or a pause for a standby that nobody has claimed.
	ErrUnclaimed = errors.New("a standby that is not claimed")
	// ErrMalformed: a message that the guard or the client could not read.
	ErrMalformed = errors.New("malformed guard message")
	// ErrVersion: the two sides speak different versions of the protocol.
	ErrVersion = errors.New("guard speaks another protocol version")
	// ErrRunning: a guard already runs for this guest on this host.
	ErrRunning = errors.New("a guard already runs for this guest")
	// ErrNoGuard: there is no configuration of a guard to attach to.
	ErrNoGuard = errors.New("no guard was started for this guest")
	// ErrDetached: the connection was closed here, or the guard dropped it; the
	// guest may well run on.
	ErrDetached = errors.New("not connected to the guard")
)

// codes are the error words on the wire.
var codes = []struct {
	word string
	err  error
}{
	{"stale-epoch", ErrStaleEpoch},
	{"unknown-epoch", ErrUnknownEpoch},
	{"past-deadline", ErrPastDeadline},
	{"gone", ErrGone},
	{"pause-busy", ErrPauseBusy},
	{"pause-used", ErrPauseUsed},
	{"pause-unknown", ErrPauseUnknown},
	{"not-standby", ErrNotStandby},
	{"unclaimed", ErrUnclaimed},
	{"version", ErrVersion},
	{"malformed", ErrMalformed},
}

func codeOf(err error) string {
	for i := range codes {
		if errors.Is(err, codes[i].err) {
			return codes[i].word
		}
	}
	return "malformed"
}

func errorOf(code string) error {
	for i := range codes {
		if codes[i].word == code {
			return codes[i].err
		}
	}
	return fmt.Errorf("guard answered with error %q, unknown to this version", code)
}

// GoneError is an ErrGone that may know how the guest ended.
type GoneError struct {
	// Record is nil if no exit record was found: the guard itself was killed.
	Record *ExitRecord
	// Detail says how it was noticed.
	Detail string
}

func (e *GoneError) Error() string {
	if e.Record == nil {
		return fmt.Sprintf("%v: %s; there is no exit record", ErrGone, e.Detail)
	}
	return fmt.Sprintf("%v: %s; %s", ErrGone, e.Detail, e.Record)
}

// Is makes errors.Is(err, ErrGone) true.
func (e *GoneError) Is(target error) bool { return target == ErrGone }
