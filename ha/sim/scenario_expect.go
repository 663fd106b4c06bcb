package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vmctl/ha"
)

// expectations hold whatever the log says, so that a log that is written anew
// cannot be nonsense.
var expectations = []verb{
	{words: "expect GUEST runs on NODE", about: "there, and nowhere else", check: func(st *stage, a args) string {
		v := st.w.volume(a.guests[0])
		if on := st.runsOn(v); !slices.Equal(on, a.hosts) {
			return fmt.Sprintf("it runs on %v", on)
		}
		return ""
	}},
	{words: "expect GUEST runs somewhere", about: "on exactly one node, whichever", check: func(st *stage, a args) string {
		if on := st.runsOn(st.w.volume(a.guests[0])); len(on) != 1 {
			return fmt.Sprintf("it runs on %v", on)
		}
		return ""
	}},
	{words: "expect GUEST runs nowhere", about: "frozen counts as not running", check: func(st *stage, a args) string {
		if on := st.runsOn(st.w.volume(a.guests[0])); len(on) > 0 {
			return fmt.Sprintf("it runs on %v", on)
		}
		return ""
	}},
	{words: "expect GUEST frozen on NODE", about: "stopped by its guard, with its memory", check: func(st *stage, a args) string {
		v, h := st.w.volume(a.guests[0]), st.host(a.hosts[0])
		if !h.machine[v.index].alive || st.executes(h, v) {
			return fmt.Sprintf("it %s there", either(st.seen[v.index].on[h.index], "is not"))
		}
		return ""
	}},
	{words: "expect owner of GUEST is NODE", about: "by the highest epoch that a node stored", check: func(st *stage, a args) string {
		if r, _ := st.newest(a.guests[0]); r.Owner != a.hosts[0] {
			return fmt.Sprintf("it is %q", r.Owner)
		}
		return ""
	}},
	{words: "expect epoch of GUEST is COUNT", about: "one more than changes of its owner", check: func(st *stage, a args) string {
		if r, _ := st.newest(a.guests[0]); r.Epoch != a.count {
			return fmt.Sprintf("it is %d", r.Epoch)
		}
		return ""
	}},
	{words: "expect GUEST in sync", about: "its replica is complete and counts", check: func(st *stage, a args) string {
		v := st.w.volume(a.guests[0])
		if r, _ := st.newest(v.id); r.Outdated || !v.engine.attached {
			return "its replica is outdated"
		}
		return ""
	}},
	{words: "expect GUEST outdated", about: "its replica lacks writes, and that is stored", check: func(st *stage, a args) string {
		if r, _ := st.newest(a.guests[0]); !r.Outdated {
			return "its replica counts"
		}
		return ""
	}},
	{words: "expect GUEST removed", about: "no node has it any more", check: func(st *stage, a args) string {
		if r, known := st.newest(a.guests[0]); known {
			return fmt.Sprintf("%s owns it at epoch %d", r.Owner, r.Epoch)
		}
		return ""
	}},
	{words: "expect GUEST lost nothing", about: "no acknowledged write was given up", check: func(st *stage, a args) string {
		if n := st.seen[st.w.volume(a.guests[0]).index].gone; n > 0 {
			return fmt.Sprintf("%d acknowledged writes were given up", n)
		}
		return ""
	}},
	{words: "expect GUEST lost writes", about: "a promotion gave acknowledged writes up", check: func(st *stage, a args) string {
		if st.seen[st.w.volume(a.guests[0]).index].gone == 0 {
			return "it lost nothing"
		}
		return ""
	}},
	{words: "expect GUEST never away", about: "it has run all the time", check: func(st *stage, a args) string {
		return st.longer(a, 0)
	}},
	{words: "expect GUEST away at most TIME", about: "the longest time it ran nowhere", check: func(st *stage, a args) string {
		return st.longer(a, a.times[0])
	}},
	{words: "expect no alarm", about: "on either node", check: func(st *stage, _ args) string {
		return strings.Join(slices.Concat(st.alarms(nodeNames[0]), st.alarms(nodeNames[1])), ", ")
	}},
	{words: "expect no alarm on NODE", check: func(st *stage, a args) string {
		return strings.Join(st.alarms(a.hosts[0]), ", ")
	}},
	{words: "expect alarm ALARM on NODE", about: "by its kind, as in peer-lost", check: func(st *stage, a args) string {
		list := st.alarms(a.hosts[0])
		if !slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, a.words[0]+" ") }) {
			return fmt.Sprintf("there are %v", list)
		}
		return ""
	}},
}

// longer says whether a guest was away for too long.
func (st *stage) longer(a args, most time.Duration) string {
	if d := st.away(st.w.volume(a.guests[0])); d > most {
		return fmt.Sprintf("it was away for %v", d)
	}
	return ""
}

// alarms lists what is raised on a node whose agent runs.
func (st *stage) alarms(id ha.NodeID) []string {
	h := st.host(id)
	core, ok := h.step.(*ha.Core)
	if !ok || !h.power || !h.agent {
		return nil
	}
	list := strings.FieldsFunc(st.standing[h], func(r rune) bool { return r == '\n' })
	for _, a := range core.Status().Alarms {
		list = append(list, fmt.Sprintf("%s %s on %s", a.Kind, a.Guest, id))
	}
	return list
}

func either(s state, otherwise string) string {
	if s == absent {
		return otherwise
	}
	return string(s)
}
