package witness

import (
	"errors"
	"slices"

	"vmctl/ha"
	"vmctl/store"
)

// writer makes votes durable, those of all clusters that wait in one
// transaction. It has one batch at a time.
type writer struct {
	db      *store.DB
	batches chan []*cluster
	done    chan []error // of the batch under way
	batch   []*cluster   // the loop's: what is under way
	ring    func()
}

func newWriter(db *store.DB) *writer {
	return &writer{db: db, batches: make(chan []*cluster), done: make(chan []error, 1)}
}

// offer begins a batch, if none is under way. The clusters' held actions must
// stay as they are until it is done.
func (w *writer) offer(batch []*cluster) bool {
	if w.batch != nil {
		return false
	}
	w.batch = batch
	w.batches <- batch
	return true
}

// run stores batches until there are no more.
func (w *writer) run() {
	for batch := range w.batches {
		w.done <- w.store(batch)
		w.ring()
	}
}

// store writes a batch. If it fails as a whole, each cluster has its own try: a
// record that cannot be stored must not take the others' votes along.
func (w *writer) store(batch []*cluster) []error {
	errs := make([]error, len(batch))
	err := w.write(batch...)
	if err == nil {
		return errs
	}
	for i, c := range batch {
		if errs[i] = err; len(batch) > 1 && !errors.Is(err, store.ErrFull) && !fatal(err) {
			errs[i] = w.write(c)
		}
	}
	return errs
}

func (w *writer) write(batch ...*cluster) error {
	return w.db.Update(func(tx *store.Tx) error {
		for _, c := range batch {
			for _, action := range c.held[:durable(c.held)] {
				if err := c.put(tx, action); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// durable is how many actions, which stand first, must be stored.
func durable(actions []ha.Action) int {
	for i, action := range actions {
		switch action.(type) {
		case ha.Persist, ha.Erase:
		default:
			return i
		}
	}
	return len(actions)
}

// fatal says that the store takes no more writes before it is opened anew.
func fatal(err error) bool {
	return errors.Is(err, store.ErrUncertain) || errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrClosed)
}

// stored goes on with the clusters of a batch that is done.
func (p *loop) stored() {
	var errs []error
	select {
	case errs = <-p.writer.done:
	default:
		return
	}
	batch := p.writer.batch
	p.writer.batch = nil
	for i, c := range batch {
		actions := c.held
		c.held = nil
		p.alarm(errs[i])
		if errs[i] != nil {
			p.step(c, ha.PersistFailed{Err: errs[i].Error()})
		} else {
			p.execute(c, actions[durable(actions):])
		}
		for _, l := range slices.Clone(c.links) {
			p.use(l, func() error { return p.frames(l, l.plain) })
		}
	}
}

// alarm says once that votes cannot be stored, and once that they can again.
func (p *loop) alarm(err error) {
	switch {
	case err == nil && p.failing:
		p.failing = false
		p.log.Info("alarm ended: votes are stored again")
	case err != nil && !p.failing:
		p.failing = true
		p.log.Error("alarm: votes cannot be stored; what needs storing is not acknowledged", "error", err)
	}
	if fatal(err) {
		p.fatal = err
	}
}
