package sim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
)

// Scenario is one folder of testdata: what happens, and what must come of it.
// Nothing in it is left to chance, so its log changes only with a decision.
type Scenario struct {
	Name   string
	Readme string // the situation in a sentence or two
	Log    string // the decisions as they should be; empty in a new folder

	set    settings
	events []event
}

// settings are the lines of a script before its first event.
type settings struct {
	mode   ha.Mode
	bias   ha.NodeID     // with mode bias
	delay  time.Duration // with mode fence: of the node that does not shoot first
	guests []guestLine
	ppm    map[ha.NodeID]int64
	resync time.Duration // how long it takes to complete a replica
}

// guestLine says what a guest is before the story begins.
type guestLine struct {
	id     ha.GuestID
	on     ha.NodeID
	level  ha.Level
	idle   bool // it writes nothing
	policy recovery.Policy
	later  bool // a user creates it in the course of events
}

// event is one line of a script.
type event struct {
	line int
	moment
	text string // as written, without the time
	verb *verb
	args args
}

// LoadScenario reads a folder. A script that is not well formed is an error
// with the number of its line.
func LoadScenario(dir string) (*Scenario, error) {
	s := &Scenario{Name: filepath.Base(dir)}
	script := ""
	for name, to := range map[string]*string{"README": &s.Readme, "script": &script, "log": &s.Log} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !(name == "log" && errors.Is(err, os.ErrNotExist)) {
			return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		*to = string(data)
	}
	if strings.TrimSpace(s.Readme) == "" {
		return nil, fmt.Errorf("scenario %s: its README is empty: say what happens and what must come of it", s.Name)
	}
	if err := s.parse(script); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	return s, nil
}

// Play runs the story and returns its log. The error names the first violated
// invariant and every expectation that was not met.
func (s *Scenario) Play() (string, error) {
	st, err := newStage(s)
	if err != nil {
		return "", fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	var unmet []error
	for _, e := range s.events {
		if err := st.reach(e.moment); err != nil {
			unmet = append(unmet, fmt.Errorf("script:%d: %s: %w", e.line, e.text, err))
			break
		}
		if e.verb.check == nil {
			st.say("==", "%s", e.text)
			e.verb.do(st, e.args)
			st.observe()
		} else if bad := e.verb.check(st, e.args); bad != "" {
			unmet = append(unmet, fmt.Errorf("script:%d: %s: but %s", e.line, e.text, bad))
		}
	}
	st.summary()
	if st.w.fail != nil {
		unmet = append(unmet, fmt.Errorf("at %s: %w", st.clock(), st.w.fail))
	}
	return st.log.String(), errors.Join(unmet...)
}

// TwoNode says whether both nodes play a part: an event names the other node
// than the guests' first, a link, the switch, or a witness.
func (s *Scenario) TwoNode() bool {
	hosts := map[ha.NodeID]bool{}
	for _, g := range s.set.guests {
		hosts[g.on] = true
	}
	for _, e := range s.events {
		for _, h := range e.args.hosts {
			hosts[h] = true
		}
		if strings.HasPrefix(e.text, "switch ") {
			return true
		}
	}
	return hosts[nodeNames[0]] && hosts[nodeNames[1]]
}
