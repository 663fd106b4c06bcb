package lease

import (
	"slices"

	"vmctl/ha"
)

// compact makes a decoded heartbeat smaller that is too long to be packed: it is
// kept, and so are its records in the core. The decoder makes a string of its own of every name, though they are
// nearly all the same three, and leaves room at the end of lists.
func compact(m *ha.Heartbeat) {
	var names []ha.NodeID
	one := func(id *ha.NodeID) {
		if at := slices.Index(names, *id); at >= 0 {
			*id = names[at]
		} else if len(names) < 8 {
			names = append(names, *id)
		}
	}
	c := &m.Cluster
	for _, id := range []*ha.NodeID{&m.From, &c.By, &c.Nodes[0], &c.Nodes[1], &c.Witness, &c.Bias} {
		one(id)
	}
	levels := []ha.Level{ha.LevelNone, ha.LevelRestart, ha.LevelResume, ha.LevelFT}
	for _, list := range []*[]ha.Record{&m.Renewals, &m.Handovers} {
		if cap(*list) > len(*list) {
			*list = append(make([]ha.Record, 0, len(*list)), *list...)
		}
		for i := range *list {
			r := &(*list)[i]
			for _, id := range []*ha.NodeID{&r.Owner, &r.Standby, &r.Arbiter} {
				one(id)
			}
			if at := slices.Index(levels, r.Level); at >= 0 {
				r.Level = levels[at]
			}
		}
	}
}
