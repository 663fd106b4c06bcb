package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vmctl/node/api"
	"vmctl/node/notify"
	"vmctl/store"
)

// keepHeard is how often it is stored how far the targets of notifications are,
// if nothing else is stored meanwhile: what was delivered since is delivered
// twice by the agent after one that was killed.
const keepHeard = 30 * time.Second

// heardRecord is how far the targets of notifications are in the event log.
type heardRecord struct {
	Targets []notify.Heard `msgpack:"targets"`
}

// notice is an event as the targets of notifications hear of it.
func (r eventRecord) notice(node string) notify.Event {
	kind := r.Kind
	if r.State == notify.Off { // the end of an alarm has the alarm's own kind
		kind = strings.TrimSuffix(kind, overSuffix)
	}
	return notify.Event{
		Kind: kind, Severity: r.Severity, VM: r.Guest, Node: node, Message: r.Message, Time: r.Time,
		State: r.State, ID: r.ID, Position: r.Position,
	}
}

// resumeNotifications has the targets told what an earlier agent had not got
// round to.
func (n *Node) resumeNotifications() error {
	j := n.journal
	var stored heardRecord
	err := n.db.View(func(tx *store.Tx) error {
		row, err := heardTable.Get(tx, only)
		stored = row.Value
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("load how far notifications are: %w", err)
	}
	last, err := j.newest()
	if err != nil {
		return fmt.Errorf("load how far notifications are: %w", err)
	}
	for _, h := range stored.Targets {
		last = max(last, h.Position)
	}
	j.position, j.kept = last, stored.Targets
	for i := range j.kept {
		j.kept[i].Ended = -1 // not counted by this run
	}
	gone := n.notifier.Resume(stored.Targets, last, n.alarms.notices(), j.since)
	j.heard = n.notifier.Heard
	for _, g := range gone {
		j.record(warning, "notifications-dropped", "", fmt.Sprintf(
			"%s is no target of notifications any more: nobody else is told of the %d events that it may not have got", g.Name, g.Count))
	}
	return nil
}

// newest is the position of the newest event that has one.
func (j *journal) newest() (position uint64, err error) {
	err = j.db.View(func(tx *store.Tx) error {
		for e, err := range eventLog.Backward(tx) {
			if err == nil && e.Value.Position > 0 { // a damaged one is passed over
				position = e.Value.Position
				return nil
			}
		}
		return nil
	})
	return position, err
}

// since gives the events after a position, oldest first; those that cannot be
// read are missing.
func (j *journal) since(position uint64) (list []notify.Event) {
	err := j.db.View(func(tx *store.Tx) error {
		for e, err := range eventLog.Backward(tx) {
			switch {
			case err != nil:
				j.log.Error("an event cannot be read, and nobody is told of it", "sequence", e.Seq, "error", err)
			case e.Value.Position > position:
				list = append(list, e.Value.notice(j.node))
			case e.Value.Position > 0:
				return nil
			}
		}
		return nil
	})
	if err != nil {
		j.log.Error("events cannot be read, and nobody is told of them", "error", err)
	}
	slices.Reverse(list)
	return list
}

// news is how far the targets are, if it is worth being stored; nil: it is not.
// Targets that were told nothing meanwhile may lag behind what was not for them.
func (j *journal) news() []notify.Heard {
	if j.heard == nil {
		return nil
	}
	heard := j.heard()
	if len(heard) == 0 && len(j.kept) == 0 {
		return nil
	}
	same := slices.EqualFunc(heard, j.kept, func(a, b notify.Heard) bool {
		return a.Key == b.Key && a.New == b.New && a.Ended == b.Ended && a.Position < b.Position+lagHeard
	})
	if same {
		return nil
	}
	return heard
}

// lagHeard is how many events that are not for a target go by before it is
// stored that they did.
const lagHeard = 1000

// notices are the standing alarms as the targets of notifications hear of them.
func (a *alarms) notices() (list []notify.Event) {
	for _, standing := range a.list() {
		list = append(list, notify.Event{
			Kind: standing.Kind, Severity: alarm, VM: standing.VM, Node: a.journal.node, Message: standing.Text,
			Time: standing.Since.Time, State: notify.On,
		})
	}
	slices.SortStableFunc(list, func(x, y notify.Event) int { return cmp.Compare(x.Time.UnixNano(), y.Time.UnixNano()) })
	return list
}

// notifyTargets shows who hears of events and alarms.
func (n *Node) notifyTargets() []api.NotifyTarget {
	var list []api.NotifyTarget
	for _, s := range n.notifier.Status() {
		t := api.NotifyTarget{Target: s.Target, Delivered: s.Delivered, Waiting: s.Waiting, Lost: s.Lost}
		if !s.Failing.IsZero() {
			t.Failing = &api.Time{Time: s.Failing}
		}
		if s.Reason != nil {
			t.Error = s.Reason.Error()
		}
		list = append(list, t)
	}
	return list
}

// NotifyTest implements api.Hosts.
func (n *Node) NotifyTest(ctx context.Context) ([]api.NotifyTest, error) {
	if len(n.config.Notify) == 0 {
		return nil, api.Errorf(api.Conflict, "send a test notification: nobody is to be told of anything").
			WithHint("Name a webhook, a program or the system's log under `notify` in the config file, then `systemctl restart vmctl` (guests run on).")
	}
	list := []api.NotifyTest{}
	for _, r := range n.notifier.Test(ctx, notify.Event{
		Kind: "notify-test", Severity: info, Node: n.config.Name, Message: "this is a test of notifications from node " + n.config.Name,
	}) {
		test := api.NotifyTest{Target: r.Target, OK: r.Err == nil, Millis: float64(r.Took.Microseconds()) / 1000}
		if r.Err != nil {
			test.Error = r.Err.Error()
		}
		list = append(list, test)
	}
	return list, nil
}
