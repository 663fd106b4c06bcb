package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmctl/ha"
	"vmctl/ha/recovery"
)

var (
	nodeNames    = []ha.NodeID{"node-a", "node-b"}
	witnessNames = []ha.NodeID{"witness-1", "witness-2"}
)

// verb is one thing that can stand in a script. Words in capitals are places
// for values, those in brackets may be left out. Either do or check is set.
type verb struct {
	words string
	about string
	do    func(st *stage, a args)
	check func(st *stage, a args) string // what is wrong, or nothing
}

// args are a line's values, by kind and in order.
type args struct {
	hosts  []ha.NodeID
	guests []ha.GuestID
	times  []time.Duration
	words  []string
	count  uint64
	flags  map[string]bool
}

// verbs is everything a script can say.
func verbs() []verb {
	return slices.Concat(hostVerbs, linkVerbs, guestVerbs, userVerbs, expectations)
}

func (s *Scenario) parse(script string) error {
	s.set = settings{mode: ha.ModeWitness, resync: time.Second, ppm: map[ha.NodeID]int64{}}
	known := verbs()
	last, begun := time.Duration(0), false
	for i, text := range strings.Split(script, "\n") {
		text, _, _ = strings.Cut(text, "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		fail := func(err error) error { return fmt.Errorf("script:%d: %q: %w", i+1, strings.TrimSpace(text), err) }
		m, rest, timed, err := when(words)
		if err == nil && timed && m.from == fromBeginning && m.at < last {
			err = fmt.Errorf("it is at %v, after a line that is at %v", m.at, last)
		}
		switch {
		case err != nil:
			return fail(err)
		case !timed && !begun:
			if err := s.setting(words); err != nil {
				return fail(err)
			}
			continue
		case !timed && words[0] != "expect":
			return fail(fmt.Errorf("it needs a time, as in \"10s\" or \"+2s\""))
		}
		e := event{line: i + 1, moment: m, text: strings.Join(rest, " ")}
		if e.verb, e.args, err = match(known, rest, s.set.guests); err != nil {
			return fail(err)
		}
		begun = true
		if m.from == fromBeginning {
			last = m.at
		}
		s.events = append(s.events, e)
	}
	switch {
	case len(s.set.guests) == 0:
		return fmt.Errorf("script: no guest: say \"guest g0 on node-a\" before the first event")
	case len(s.events) == 0 || s.events[len(s.events)-1].verb.check == nil:
		return fmt.Errorf("script: it must end with what is expected")
	}
	return nil
}

func match(known []verb, words []string, guests []guestLine) (*verb, args, error) {
	var nearest string
	best := 0
	for i := range known {
		a, good, err := known[i].match(words, guests)
		if err == nil {
			return &known[i], a, nil
		}
		if good > best {
			best, nearest = good, fmt.Sprintf(": %v (%s)", err, known[i].words)
		}
	}
	return nil, args{}, fmt.Errorf("there is no such verb%s", nearest)
}

// match reads a line's words as this verb's; good counts those that fit.
func (v *verb) match(words []string, guests []guestLine) (a args, good int, err error) {
	a.flags = map[string]bool{}
	rest := words
	for _, want := range strings.Fields(v.words) {
		if flag, optional := strings.CutPrefix(want, "["); optional {
			flag = strings.TrimSuffix(flag, "]")
			if len(rest) > 0 && rest[0] == flag {
				a.flags[flag], rest = true, rest[1:]
				good++
			}
			continue
		}
		if len(rest) == 0 {
			return a, good, fmt.Errorf("%s is missing", want)
		}
		if err := a.take(want, rest[0], guests); err != nil {
			return a, good, err
		}
		rest = rest[1:]
		good++
	}
	if len(rest) > 0 {
		return a, good, fmt.Errorf("%q is too much", rest[0])
	}
	return a, good, nil
}

// take reads one word as a verb wants it.
func (a *args) take(want, word string, guests []guestLine) (err error) {
	bad := fmt.Errorf("%q is no %s", word, strings.ToLower(want))
	id := ha.NodeID(word)
	switch want {
	case "NODE", "HOST", "WITNESS":
		if !(want != "WITNESS" && slices.Contains(nodeNames, id)) && !(want != "NODE" && slices.Contains(witnessNames, id)) {
			return bad
		}
		a.hosts = append(a.hosts, id)
	case "GUEST":
		if !slices.ContainsFunc(guests, func(g guestLine) bool { return string(g.id) == word }) {
			return bad
		}
		a.guests = append(a.guests, ha.GuestID(word))
	case "TIME":
		d, err := time.ParseDuration(word)
		if err != nil || d <= 0 {
			return bad
		}
		a.times = append(a.times, d)
	case "LEVEL":
		if oneOf(word, "none", "restart", "resume") != nil {
			return bad
		}
		a.words = append(a.words, word)
	case "COUNT":
		if a.count, err = strconv.ParseUint(word, 10, 32); err != nil {
			return bad
		}
	case "ALARM":
		a.words = append(a.words, word)
	default:
		if want != word {
			return bad
		}
	}
	return nil
}

func (s *Scenario) setting(words []string) error {
	switch {
	case words[0] == "mode" && len(words) <= 3:
		return s.mode(words[1:])
	case words[0] == "resync" && len(words) == 2:
		d, err := time.ParseDuration(words[1])
		s.set.resync = d
		return err
	case words[0] == "clock" && len(words) == 3:
		n, err := strconv.ParseInt(strings.TrimSuffix(words[2], "ppm"), 10, 64)
		s.set.ppm[ha.NodeID(words[1])] = n
		return err
	case words[0] == "guest" && len(words) >= 4 && words[2] == "on":
		return s.guest(words)
	}
	return fmt.Errorf("no such setting; there are mode, guest, clock, resync")
}

// mode reads "none", "witness", "bias node-b" or "fence 5s", the delay.
func (s *Scenario) mode(words []string) (err error) {
	s.set.mode = ha.Mode(strings.Join(words[:min(1, len(words))], ""))
	switch {
	case len(words) == 1 && (s.set.mode == ha.ModeNone || s.set.mode == ha.ModeWitness):
	case len(words) == 2 && s.set.mode == ha.ModeBias && slices.Contains(nodeNames, ha.NodeID(words[1])):
		s.set.bias = ha.NodeID(words[1])
	case len(words) == 2 && s.set.mode == ha.ModeFence:
		s.set.delay, err = time.ParseDuration(words[1])
	default:
		err = fmt.Errorf("a mode is none, witness, \"bias NODE\" or \"fence TIME\", the delay of the node that does not go first")
	}
	return err
}

func (s *Scenario) guest(words []string) error {
	g := guestLine{id: ha.GuestID(words[1]), on: ha.NodeID(words[3]), level: ha.LevelResume, policy: recovery.Policy{
		Action: recovery.Resume, Attempts: 3, Backoff: 5 * time.Second, Failback: recovery.Never,
	}}
	if !slices.Contains(nodeNames, g.on) {
		return fmt.Errorf("%q is no node", g.on)
	}
	for rest := words[4:]; len(rest) > 0; {
		switch {
		case rest[0] == "idle":
			g.idle, rest = true, rest[1:]
			continue
		case rest[0] == "later":
			g.later, rest = true, rest[1:]
			continue
		case len(rest) == 1:
			return fmt.Errorf("a guest is not %q", rest[0])
		}
		if err := g.say(rest[0], rest[1]); err != nil {
			return err
		}
		rest = rest[2:]
	}
	s.set.guests = append(s.set.guests, g)
	return nil
}

// say sets one word of a guest's.
func (g *guestLine) say(word, value string) (err error) {
	p := &g.policy
	switch word {
	case "level":
		g.level, err = ha.Level(value), oneOf(value, "none", "restart", "resume")
	case "priority":
		p.Priority, err = strconv.Atoi(value)
	case "after":
		p.After = append(p.After, value)
	case "attempts":
		p.Attempts, err = strconv.Atoi(value)
	case "action":
		p.Action, err = recovery.How(value), oneOf(value, "resume", "restart", "leave")
	case "failback":
		p.Failback = recovery.WhenSynced
		p.Settle, err = time.ParseDuration(value)
	default:
		err = fmt.Errorf("a guest has no %q", word)
	}
	return err
}

func oneOf(word string, words ...string) error {
	if slices.Contains(words, word) {
		return nil
	}
	return fmt.Errorf("%q is none of %v", word, words)
}
