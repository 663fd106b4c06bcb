package node

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
)

// alarms holds the conditions that last; each is recorded when it begins and
// when it ends.
type alarms struct {
	journal *journal

	mu     sync.Mutex
	raised map[[2]string]api.Alarm // by kind and guest
}

func newAlarms(j *journal) *alarms { return &alarms{journal: j, raised: map[[2]string]api.Alarm{}} }

// set raises or clears an alarm. guest is a name, or empty for the node's own.
func (a *alarms) set(kind, guest string, on bool, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{kind, guest}
	_, raised := a.raised[key]
	if raised == on {
		return
	}
	if !on {
		a.journal.record(info, kind+"-over", guest, fmt.Sprintf("over: %s (since %s)", a.raised[key].Text, a.raised[key].Since.Format(time.TimeOnly)))
		delete(a.raised, key)
		return
	}
	a.raised[key] = api.Alarm{Kind: kind, VM: guest, Text: text, Since: api.Time{Time: time.Now()}}
	a.journal.record(alarm, kind, guest, text)
}

func (a *alarms) list() []api.Alarm {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]api.Alarm, 0, len(a.raised))
	for _, alarm := range a.raised {
		list = append(list, alarm)
	}
	slices.SortFunc(list, func(x, y api.Alarm) int { return strings.Compare(x.Kind+x.VM, y.Kind+y.VM) })
	return list
}

// hinders are the alarms of a node that keep guests from being moved to it or
// from it by themselves.
var hinders = []ha.AlarmKind{ha.AlarmPeer, ha.AlarmWitness, ha.AlarmMode, ha.AlarmStorage, ha.AlarmClock}

// standing gives one alarm of the node that hinders, and one of each guest.
func (a *alarms) standing() (node string, guests map[string]string) {
	guests = map[string]string{}
	for _, alarm := range a.list() {
		switch {
		case alarm.VM != "":
			guests[alarm.VM] = alarm.Text
		case slices.Contains(hinders, ha.AlarmKind(alarm.Kind)):
			node = alarm.Text
		}
	}
	return node, guests
}

// notice records what the lease core has to say: alarms, and why it decided
// what it did.
func (n *Node) notice(action ha.Action) {
	switch a := action.(type) {
	case ha.Alarm:
		n.alarms.set(string(a.Kind), n.guests.nameOf(a.Guest), a.On, a.Text)
	case ha.Note:
		n.journal.record(info, "decision", n.guests.nameOf(a.Guest), a.Reason, "verdict", string(a.Verdict))
		n.guests.explain(a)
	case ha.Forgotten:
		n.guests.forgotten(a.Guest)
	}
}
