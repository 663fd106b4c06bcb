package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vmctl/vm"
)

const (
	// alarmFit stands while one node alone could not hold what both run: admission
	// was forced, or a node has less memory than before.
	alarmFit = "would-not-fit"
	fitEvery = time.Second
)

// watchFit raises and ends the alarm until ctx ends.
func (n *Node) watchFit(ctx context.Context) {
	every(ctx, fitEvery, func() {
		if text, known := n.tooTight(); known {
			n.alarms.set(alarmFit, "", text != "", text)
		}
	})
}

// tooTight says which node could not hold everything alone; empty: neither. It is
// not known while a node that might be the one has not said what it has, as after a
// start of this agent: then the alarm of an earlier one stands for a while.
func (n *Node) tooTight() (text string, known bool) {
	record, _ := n.members.current()
	if len(record.Members) < 2 {
		return "", true
	}
	var tight []string
	known = true
	for _, m := range record.Members {
		has, said := n.capacityOf(m.Name)
		if !said {
			known = false
		} else if need := n.neededAlone(m.Name, vm.Spec{}); lacks(need, has) != "" {
			tight = append(tight, tightText(m.Name, need, has))
		}
	}
	if len(tight) == 0 {
		return "", known
	}
	return strings.Join(tight, "; ") + ": not all of them would run", true
}

// tightText says what a node has to hold alone, and has.
func tightText(node string, need, has vm.Use) string {
	return fmt.Sprintf("if the other node fails, %s has to hold %s", node, lacks(need, has))
}
