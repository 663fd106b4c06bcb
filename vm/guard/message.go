package guard

import (
	"math"
	"strconv"
)

const (
	protocolVersion = 1
	maxMessage      = 1024
)

type verb uint8

const (
	verbNone verb = iota
	verbRenew
	verbClaim
	verbRevoke
	verbKill
	verbTerminate
	verbStatus
	verbPauseBegin
	verbPauseEnd
	verbIsolation
)

// verbs holds the word and the number of arguments of each verb.
var verbs = [...]struct {
	word string
	args int
}{
	verbRenew:      {"renew", 2},
	verbClaim:      {"claim", 2},
	verbRevoke:     {"revoke", 1},
	verbKill:       {"kill", 0},
	verbTerminate:  {"terminate", 1},
	verbStatus:     {"status", 0},
	verbPauseBegin: {"pause-begin", 2},
	verbPauseEnd:   {"pause-end", 1},
	verbIsolation:  {"isolation", 1},
}

// request is one message to a guard. Every argument fits an int64 where it is a
// time; decodeRequest has checked that.
type request struct {
	tag  uint64
	verb verb
	args [2]uint64
}

// appendRequest encodes r as decodeRequest reads it.
func appendRequest(b []byte, r request) []byte {
	b = appendHead(b, r.tag)
	b = append(b, verbs[r.verb].word...)
	for _, a := range r.args[:verbs[r.verb].args] {
		b = append(b, ' ')
		b = strconv.AppendUint(b, a, 10)
	}
	return b
}

// decodeRequest reads one packet without allocating. An error is ErrMalformed or
// ErrVersion; the tag is set even then if it could be read, else it is 0.
func decodeRequest(packet []byte) (request, error) {
	var r request
	version, rest, ok := cutNumber(packet)
	if !ok {
		return r, ErrMalformed
	}
	if r.tag, rest, ok = cutNumber(rest); !ok || r.tag == 0 {
		return r, ErrMalformed
	}
	if version != protocolVersion {
		return r, ErrVersion
	}
	word, rest := cutWord(rest)
	for v := verbRenew; int(v) < len(verbs); v++ {
		if string(word) == verbs[v].word {
			r.verb = v
		}
	}
	if r.verb == verbNone {
		return r, ErrMalformed
	}
	for i := range verbs[r.verb].args {
		if r.args[i], rest, ok = cutNumber(rest); !ok {
			return r, ErrMalformed
		}
	}
	if rest != nil || r.timeTooLarge() {
		return r, ErrMalformed
	}
	return r, nil
}

// timeTooLarge checks the arguments that are times in int64 nanoseconds.
func (r *request) timeTooLarge() bool {
	switch r.verb {
	case verbRenew, verbClaim, verbPauseBegin:
		return r.args[1] > math.MaxInt64
	case verbTerminate:
		return r.args[0] > math.MaxInt64
	}
	return false
}

// cutWord splits at the first space. rest is nil if there was none: a message
// that ends in a space has a rest that is empty but not nil, and is refused.
func cutWord(b []byte) (word, rest []byte) {
	for i, c := range b {
		if c == ' ' {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// cutNumber splits off a decimal uint64 in its only accepted form: digits
// without leading zeros.
func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	word, rest := cutWord(b)
	if len(word) == 0 || len(word) > 20 || word[0] == '0' && len(word) > 1 {
		return 0, rest, false
	}
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0, rest, false
		}
		d := uint64(c - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, rest, false
		}
		n = n*10 + d
	}
	return n, rest, true
}

func appendHead(b []byte, tag uint64) []byte {
	b = strconv.AppendUint(b, protocolVersion, 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, tag, 10)
	return append(b, ' ')
}

func appendOK(b []byte, tag uint64) []byte { return append(appendHead(b, tag), "ok"...) }

func appendNumber(b []byte, n uint64) []byte {
	return strconv.AppendUint(append(b, ' '), n, 10)
}

func appendError(b []byte, tag uint64, err error) []byte {
	return append(append(appendHead(b, tag), "error "...), codeOf(err)...)
}
