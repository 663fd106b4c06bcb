package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"

	"vmctl/node/api"
	"vmctl/node/notify"
	"vmctl/store"
)

// Severities of an event.
const (
	info    = "info"
	warning = "warning"
	alarm   = "alarm"
)

// keepEvents is how many events the log holds before the oldest go.
const keepEvents = 20000

type eventRecord struct {
	Time     time.Time         `msgpack:"time"`
	Kind     string            `msgpack:"kind"`
	Guest    string            `msgpack:"guest"` // name, as it was then
	Severity string            `msgpack:"severity"`
	Message  string            `msgpack:"message"`
	Detail   map[string]string `msgpack:"detail"`

	// What a later agent needs to tell of it: see notify.Event. Position 0: an agent
	// of before this field wrote it.
	Position uint64       `msgpack:"position,omitempty"`
	ID       string       `msgpack:"id,omitempty"`
	State    notify.State `msgpack:"state,omitempty"`
}

// entry is an event on its way into the log; alarm is what one that begins or
// ends an alarm changes.
type entry struct {
	event eventRecord
	alarm alarmRecord
}

// journal is the event log. Recording never waits for the disk: a writer of
// its own stores what has been recorded, in order. Every event goes to tell,
// too, at once and in the same order, which must not wait either.
type journal struct {
	db    *store.DB
	node  string
	log   *slog.Logger
	tell  func(notify.Event)
	run   string                // tells the ids of this run from others'
	heard func() []notify.Heard // how far the targets are; nil: there are none

	flushing sync.Mutex     // held while a batch is stored: batches keep their order
	kept     []notify.Heard // what is stored of heard

	mu       sync.Mutex
	pending  []entry
	position uint64           // of the newest event
	recorded map[string]often // by kind and guest
	wake     chan struct{}    // capacity 1
	stored   chan struct{}    // closed and replaced when something was stored
}

func newJournal(db *store.DB, node string, log *slog.Logger, tell func(notify.Event)) *journal {
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	return &journal{db: db, node: node, log: log, tell: tell, run: hex.EncodeToString(id[:]),
		recorded: map[string]often{}, wake: make(chan struct{}, 1), stored: make(chan struct{})}
}

// record notes an event; detail is pairs of key and value.
func (j *journal) record(severity, kind, guest, message string, detail ...string) {
	message = oneLine(message)
	event := eventRecord{Time: time.Now(), Kind: kind, Guest: guest, Severity: severity, Message: message}
	for i := 0; i+1 < len(detail); i += 2 {
		if event.Detail == nil {
			event.Detail = map[string]string{}
		}
		event.Detail[detail[i]] = detail[i+1]
	}
	j.add(entry{event: event})
}

func (j *journal) add(e entry) {
	event := e.event
	level := map[string]slog.Level{info: slog.LevelInfo, warning: slog.LevelWarn, alarm: slog.LevelError}[event.Severity]
	j.log.Log(context.Background(), level, event.Message, "event", event.Kind, "vm", event.Guest)
	j.mu.Lock()
	j.position++
	e.event.Position, e.event.ID = j.position, fmt.Sprintf("%s-%d", j.run, j.position)
	j.pending = append(j.pending, e)
	j.tell(e.event.notice(j.node))
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// oneLine joins the lines of an error that has several.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

// strangersEvery bounds how often a kind of event that strangers can cause is
// stored: they must not push the real history out.
const strangersEvery = 10 * time.Second

// often is an event that comes often: when it was recorded, and how many were not since.
type often struct {
	at      time.Time
	skipped int
}

// seldom records an event that a stranger, or the guest itself, can cause at will;
// those that come too soon are only logged, and counted in the next one. guest is
// empty for one of the node.
func (j *journal) seldom(severity, kind, guest, message string) {
	key, now := kind+"/"+guest, time.Now()
	j.mu.Lock()
	was := j.recorded[key]
	soon := now.Sub(was.at) < strangersEvery
	if soon {
		was.skipped++
		j.recorded[key] = was
	} else {
		j.recorded[key] = often{at: now}
	}
	j.mu.Unlock()
	if soon {
		j.log.Info(message, "event", kind, "vm", guest)
		return
	}
	if was.skipped > 0 {
		message = fmt.Sprintf("%s (and %d times more since %s)", message, was.skipped, was.at.Format(time.TimeOnly))
	}
	j.record(severity, kind, guest, message)
}

// keep stores events until ctx ends, then the last ones.
func (j *journal) keep(ctx context.Context) {
	often := time.NewTicker(keepHeard)
	defer often.Stop()
	for done := false; !done; {
		select {
		case <-j.wake:
		case <-often.C:
			j.flushHeard()
		case <-ctx.Done():
			done = true
		}
		j.flush()
	}
}

// flush stores what was recorded before it was called, and with it how far the
// targets of notifications are.
func (j *journal) flush() { j.storePending(false) }

// flushHeard does, too, where nothing was recorded.
func (j *journal) flushHeard() { j.storePending(true) }

func (j *journal) storePending(heardAlone bool) {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	heard := j.news() // before the batch is taken: it is of what is stored with it, or was
	j.mu.Lock()
	batch := j.pending
	j.pending = nil
	j.mu.Unlock()
	if len(batch) == 0 && (heard == nil || !heardAlone) {
		return
	}
	err := j.db.Update(func(tx *store.Tx) error {
		if heard != nil {
			if _, err := heardTable.Put(tx, only, heardRecord{Targets: heard}); err != nil {
				return err
			}
		}
		for _, e := range batch {
			seq, err := eventLog.Append(tx, e.event)
			if err != nil {
				return err
			}
			if e.event.State != notify.Plain {
				if err := e.alarm.store(tx, e.event.State); err != nil {
					return err
				}
			}
			if seq%1000 == 0 {
				if _, err := eventLog.Trim(tx, keepEvents); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		j.log.Error("events not stored", "count", len(batch), "error", err)
	} else if heard != nil {
		j.kept = heard
	}
	j.mu.Lock()
	close(j.stored)
	j.stored = make(chan struct{})
	j.mu.Unlock()
}

// events yields what the filter selects.
func (j *journal) events(ctx context.Context, filter api.EventFilter) iter.Seq2[api.Event, error] {
	return func(yield func(api.Event, error) bool) {
		var last uint64
		for {
			j.mu.Lock()
			more := j.stored
			j.mu.Unlock()
			page, err := j.after(last)
			if err != nil {
				yield(api.Event{}, err)
				return
			}
			for _, event := range page {
				last = event.Sequence
				if filter.VM != "" && event.VM != filter.VM || event.Time.Before(filter.Since) {
					continue
				}
				if !yield(event, nil) {
					return
				}
			}
			if len(page) > 0 {
				continue
			}
			if !filter.Follow {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
}

// pageSize bounds what is read from the log in one transaction.
const pageSize = 500

func (j *journal) after(last uint64) ([]api.Event, error) {
	var page []api.Event
	err := j.db.View(func(tx *store.Tx) error {
		entries, err := eventLog.Since(tx, last, pageSize)
		for _, e := range entries {
			page = append(page, api.Event{
				Sequence: e.Seq, Time: api.Time{Time: e.Value.Time}, Node: j.node, Kind: e.Value.Kind, VM: e.Value.Guest,
				Severity: e.Value.Severity, Message: e.Value.Message, Detail: e.Value.Detail,
			})
		}
		return err
	})
	return page, err
}
