package model

import (
	"fmt"
	"strings"

	"vmctl/ha"
)

// summary is one line of a trace: what happened, and who executes then.
func (w *world) summary(what string) string {
	var parts []string
	for i := range nodes {
		for g := range w.count {
			m := w.host[i].machine[g]
			state := "-"
			switch {
			case w.executes(i, g) && m.deadline == ha.Forever:
				state = fmt.Sprintf("executes epoch %d without a lease", m.epoch)
			case w.executes(i, g):
				state = fmt.Sprintf("executes epoch %d, lease %.1f s", m.epoch, float64(m.deadline-w.host[i].now)/1e9)
			case m.alive:
				state = fmt.Sprintf("frozen at epoch %d", m.epoch)
			}
			parts = append(parts, fmt.Sprintf("%s %s: %s", ids[i], guests[g], state))
		}
	}
	return fmt.Sprintf("%-46s | %s", what, strings.Join(parts, " | "))
}
