package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/notify"
	"vmctl/store"
)

// alarms holds the conditions that last; each is recorded when it begins and
// when it ends, and told to the targets of notifications both times. They are
// stored: an alarm that ends while no agent runs has an end all the same.
type alarms struct {
	journal *journal

	mu      sync.Mutex
	raised  map[[2]string]api.Alarm // by kind and guest
	carried map[[2]string]bool      // raised by an earlier agent and not by this one yet
}

// alarmRecord is a raised alarm in the store.
type alarmRecord struct {
	Kind  string    `msgpack:"kind"`
	Guest string    `msgpack:"guest"`
	Text  string    `msgpack:"text"`
	Since time.Time `msgpack:"since"`
}

func (r alarmRecord) key() string { return r.Kind + "/" + r.Guest }

func newAlarms(j *journal) *alarms {
	return &alarms{journal: j, raised: map[[2]string]api.Alarm{}, carried: map[[2]string]bool{}}
}

// load takes over the alarms that an earlier agent left raised.
func (a *alarms) load(db *store.DB) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return db.View(func(tx *store.Tx) error {
		for row, err := range alarmTable.Prefix(tx, "") {
			if err != nil {
				return fmt.Errorf("load the alarms: %w", err)
			}
			r := row.Value
			key := [2]string{r.Kind, r.Guest}
			a.raised[key] = api.Alarm{Kind: r.Kind, VM: r.Guest, Text: r.Text, Since: api.Time{Time: r.Since}}
			a.carried[key] = true
		}
		return nil
	})
}

// carryFor is how long an alarm of an earlier agent stands unless this one
// raises it again: longer than it takes to find that a voter is silent.
const carryFor = 30 * time.Second

// expire ends, after a while, the alarms of an earlier agent that this one did
// not raise again: whatever they were about ended meanwhile.
func (a *alarms) expire(ctx context.Context) {
	timer := time.NewTimer(carryFor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.carried {
		a.end(key)
	}
}

// set raises or clears an alarm. guest is a name, or empty for the node's own.
// The text of one that stands is renewed.
func (a *alarms) set(kind, guest string, on bool, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{kind, guest}
	standing, raised := a.raised[key]
	switch {
	case raised && !on:
		a.end(key)
	case raised:
		standing.Text = text
		a.raised[key] = standing
		delete(a.carried, key) // who is to be told of it has been, or will be
	case on:
		begun := api.Alarm{Kind: kind, VM: guest, Text: text, Since: api.Time{Time: time.Now()}}
		a.raised[key] = begun
		a.journal.add(entry{
			event: eventRecord{Time: begun.Since.Time, Kind: kind, Guest: guest, Severity: alarm, Message: text, State: notify.On},
			alarm: alarmRecord{Kind: kind, Guest: guest, Text: text, Since: begun.Since.Time},
		})
	}
}

// overSuffix makes an alarm's kind that of the event of its end.
const overSuffix = "-over"

// end clears a raised alarm. The lock must be held.
func (a *alarms) end(key [2]string) {
	was := a.raised[key]
	delete(a.raised, key)
	delete(a.carried, key)
	text := fmt.Sprintf("over: %s (since %s)", was.Text, was.Since.Format(time.TimeOnly))
	a.journal.add(entry{
		event: eventRecord{Time: time.Now(), Kind: was.Kind + overSuffix, Guest: was.VM, Severity: info, Message: text, State: notify.Off},
		alarm: alarmRecord{Kind: was.Kind, Guest: was.VM},
	})
}

// forget ends all alarms of a guest that is no more.
func (a *alarms) forget(guest string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.raised {
		if key[1] == guest {
			a.end(key)
		}
	}
}

// ofCore are the kinds that the lease core raises and ends, but for the one about the
// peer, which goes through neighbour.
var ofCore = []ha.AlarmKind{ha.AlarmWitness, ha.AlarmMode, ha.AlarmUnprotected, ha.AlarmLeaseLow, ha.AlarmLeaseOut,
	ha.AlarmStorage, ha.AlarmClock, ha.AlarmPromise, ha.AlarmFence, ha.AlarmNotTaken}

// lapse ends what a lease core raised that is no more: the next one raises what still
// is, and could not end the rest, of which it does not know.
func (a *alarms) lapse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.raised {
		if slices.Contains(ofCore, ha.AlarmKind(key[0])) {
			a.end(key)
		}
	}
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

// store makes one change of an alarm durable, with the event that says so.
func (r alarmRecord) store(tx *store.Tx, state notify.State) error {
	if state == notify.On {
		_, err := alarmTable.Put(tx, r.key(), r)
		return err
	}
	err := alarmTable.Delete(tx, r.key())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// notice records what the lease core has to say: alarms, and why it decided
// what it did.
func (n *Node) notice(action ha.Action) {
	switch a := action.(type) {
	case ha.Alarm:
		n.raise(a)
	case ha.Note:
		n.journal.record(info, "decision", n.guests.nameOf(a.Guest), a.Reason, "verdict", string(a.Verdict))
		n.guests.explain(a)
	case ha.Forgotten:
		n.guests.forgotten(a.Guest)
	}
}

// raise passes an alarm of the core on. That the peer is silent may have been
// announced: see neighbour.
func (n *Node) raise(a ha.Alarm) {
	if a.Kind == ha.AlarmPeer {
		n.neighbour.silent(a.On, a.Text)
		return
	}
	text := a.Text
	if state := n.neighbour.announced(); a.Kind == ha.AlarmUnprotected && a.On && state != "" {
		text += ": " + state
	}
	n.alarms.set(string(a.Kind), n.guests.nameOf(a.Guest), a.On, text)
}
