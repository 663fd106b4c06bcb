package recovery

import (
	"slices"
	"sort"

	"vmctl/ha"
)

// ranks are the guests' priorities; one that others wait for has theirs if that
// is higher, for it starts before them anyway.
func (p *Planner) ranks() map[ha.GuestID]int {
	ranks := map[ha.GuestID]int{}
	for _, g := range p.guests {
		ranks[g.ID] = g.Policy.Priority
	}
	for range p.guests { // the longest chain
		changed := false
		for _, g := range p.guests {
			for _, name := range g.Policy.After {
				if d := p.named(name); d != nil && ranks[d.ID] < ranks[g.ID] {
					ranks[d.ID], changed = ranks[g.ID], true
				}
			}
		}
		if !changed {
			break
		}
	}
	return ranks
}

// byRank sorts by rank, then by name and id.
func byRank(guests []*guest, ranks map[ha.GuestID]int) []*guest {
	list := slices.Clone(guests)
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		switch {
		case ranks[a.ID] != ranks[b.ID]:
			return ranks[a.ID] > ranks[b.ID]
		case a.Name != b.Name:
			return a.Name < b.Name
		}
		return a.ID < b.ID
	})
	return list
}

// reaches says whether from waits for to, itself or through others. Cycles are
// refused when a spec is set, but two nodes may each set half of one.
func (p *Planner) reaches(from, to *guest) bool {
	seen := map[*guest]bool{}
	var look func(*guest) bool
	look = func(g *guest) bool {
		if g == to {
			return true
		}
		if seen[g] {
			return false
		}
		seen[g] = true
		for _, name := range g.Policy.After {
			if d := p.named(name); d != nil && look(d) {
				return true
			}
		}
		return false
	}
	return look(from)
}
