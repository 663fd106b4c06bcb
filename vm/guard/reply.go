package guard

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// reply is what a client reads: an answer (tag > 0) or an event (tag 0).
type reply struct {
	tag   uint64
	err   error    // set for an error answer
	words []string // what follows "ok", or the event with its arguments
}

// decodeReply reads one packet of a guard.
func decodeReply(packet []byte) (reply, error) {
	words := strings.Split(string(packet), " ")
	if len(words) < 3 {
		return reply{}, fmt.Errorf("%w: %.60q", ErrMalformed, packet)
	}
	if words[0] != strconv.Itoa(protocolVersion) {
		return reply{}, fmt.Errorf("%w: %.20q", ErrVersion, words[0])
	}
	tag, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil {
		return reply{}, fmt.Errorf("%w: tag %.30q", ErrMalformed, words[1])
	}
	r := reply{tag: tag}
	switch {
	case tag == 0:
		r.words = words[2:]
	case words[2] == "ok":
		r.words = words[3:]
	case words[2] == "error" && len(words) == 4:
		r.err = errorOf(words[3])
	default:
		return reply{}, fmt.Errorf("%w: %.60q", ErrMalformed, packet)
	}
	return r, nil
}

// appendExit encodes the event that QEMU has ended.
func appendExit(b []byte, r *ExitRecord) []byte {
	b = append(appendHead(b, 0), "exit"...)
	b = appendNumber(b, uint64(r.PID))
	b = strconv.AppendInt(append(b, ' '), int64(r.Code), 10)
	b = strconv.AppendInt(append(b, ' '), int64(r.Signal), 10)
	b = strconv.AppendInt(append(b, ' '), r.Time.UnixNano(), 10)
	return append(append(b, ' '), r.Reason...)
}

// decodeExit reads the words of an exit event.
func decodeExit(words []string) (ExitRecord, error) {
	var n [4]int64
	if len(words) != 6 || words[0] != "exit" {
		return ExitRecord{}, fmt.Errorf("%w: event %.60q", ErrMalformed, words)
	}
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(words[i+1], 10, 64); err != nil {
			return ExitRecord{}, fmt.Errorf("%w: exit event: %.60q", ErrMalformed, words)
		}
	}
	return ExitRecord{
		PID: int(n[0]), Code: int(n[1]), Signal: int(n[2]),
		Time: time.Unix(0, n[3]), Reason: Reason(words[5]),
	}, nil
}
