package vm

import "time"

// watcher is the goroutine that follows a guest: it owns the tracker.
type watcher struct {
	guest   *Guest
	events  <-chan QEMUEvent
	tracker tracker
}

func (w *watcher) run() {
	settled, lost := stopped(), stopped()
	defer settled.Stop()
	defer lost.Stop()
	for {
		select {
		case <-w.guest.closing:
			return
		case <-w.guest.guard.Gone():
			w.drain()
			w.finish()
			return
		case e, ok := <-w.events:
			if !ok {
				// QEMU's end shows here first, most often.
				w.events = nil
				lost.Reset(lastWords)
				continue
			}
			before := w.tracker.state
			w.take(e)
			switch {
			case w.tracker.state == w.tracker.reported:
				settled.Stop()
			case w.tracker.state == StateRunning:
				// At once: checkpoints stop the guest again and again, perhaps
				// faster than anything settles.
				settled.Stop()
				w.tracker.changed()
				w.publish(Event{Kind: EventRunState, Time: time.Now()})
			case w.tracker.state != before:
				settled.Reset(settle)
			}
		case <-settled.C:
			if w.tracker.changed() {
				w.publish(Event{Kind: EventRunState, Time: time.Now()})
			}
		case <-lost.C:
			w.guest.log.Warn("the guest runs but its monitor is gone; adopt it again")
			w.publish(Event{Kind: EventMonitorLost, Time: time.Now()})
		}
	}
}

// stopped is a timer that has not been set.
func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (w *watcher) take(e QEMUEvent) {
	if kind := w.tracker.apply(e.Name, e.Data); kind != "" {
		w.publish(Event{Kind: kind, Time: e.Time})
	}
}

// drain reads the events that QEMU sent before its end.
func (w *watcher) drain() {
	late := time.NewTimer(lastWords)
	defer late.Stop()
	for w.events != nil {
		select {
		case e, ok := <-w.events:
			if !ok {
				return
			}
			w.take(e)
		case <-late.C:
			return
		case <-w.guest.closing:
			return
		}
	}
}

func (w *watcher) finish() {
	select {
	case <-w.guest.requested:
		w.tracker.ending.requested = true
	default:
	}
	w.guest.exit = w.tracker.ending.exit(w.guest.guard.Record())
	w.tracker.state = StateStopped
	close(w.guest.done)
	w.guest.log.Info("guest ended", "reason", w.guest.exit.Reason, "code", w.guest.exit.Code, "signal", w.guest.exit.Signal)
	w.publish(Event{Kind: EventExited, Time: time.Now(), Exit: w.guest.exit})
}

func (w *watcher) publish(e Event) {
	e.State = w.tracker.state
	if slow := w.guest.feed.publish(e); slow > 0 {
		w.guest.log.Warn("a reader of events is too slow and missed some", "readers", slow)
	}
}
