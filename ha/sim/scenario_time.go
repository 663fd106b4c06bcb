package sim

import (
	"fmt"
	"strings"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
)

// moment is when a line of a script happens.
type moment struct {
	at      time.Duration // after from
	from    origin
	verdict ha.Verdict // with fromVerdict
}

type origin int

const (
	fromLast      origin = iota // the line before
	fromBeginning               // of the story
	fromVerdict                 // somebody's next note with it
)

// latest bounds the wait for a verdict.
const latest = 10 * time.Minute

// when splits the time off a line: "3s" since the beginning, "+1s" since the
// line before, "claiming" or "claiming+1ms" since somebody next says so. Without
// a time an expectation is about the time of the line before.
func when(words []string) (m moment, rest []string, timed bool, err error) {
	word := words[0]
	verdict, after, sum := strings.Cut(word, "+")
	switch d, perr := time.ParseDuration(strings.TrimPrefix(word, "+")); {
	case perr == nil && strings.HasPrefix(word, "+"):
		m = moment{at: d, from: fromLast}
	case perr == nil && d >= 0:
		m = moment{at: d, from: fromBeginning}
	case waitable(ha.Verdict(verdict)):
		m = moment{from: fromVerdict, verdict: ha.Verdict(verdict)}
		if sum {
			m.at, err = time.ParseDuration(after)
		}
	default:
		return moment{}, words, false, nil
	}
	if len(words) == 1 {
		err = fmt.Errorf("what happens at %s?", word)
	}
	return m, words[1:], true, err
}

// waitable says whether a verdict is one that a script can wait for.
func waitable(v ha.Verdict) bool {
	switch v {
	case ha.Asking, ha.Claiming, ha.Granted, ha.TookOver, ha.HandedOut, ha.Fencing, ha.Yielded, ha.Promoted,
		ha.Verdict(recovery.HomeGoes):
		return true
	}
	return false
}

// reach plays the world up to a line's moment.
func (st *stage) reach(m moment) error {
	now := time.Duration(st.w.now - st.begin)
	switch m.from {
	case fromLast:
		st.until(now + m.at)
	case fromBeginning:
		if m.at < now {
			return fmt.Errorf("it is %v already", now)
		}
		st.until(m.at)
	case fromVerdict:
		said := st.said[m.verdict]
		for end := now + latest; st.said[m.verdict] == said; {
			if st.w.fail != nil || len(st.w.queue) == 0 || time.Duration(st.w.now-st.begin) > end {
				return fmt.Errorf("nobody said %q", m.verdict)
			}
			st.w.until(st.w.queue[0].at)
			st.observe()
		}
		st.until(time.Duration(st.w.now-st.begin) + m.at)
	}
	return nil
}
