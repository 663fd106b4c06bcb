package work

import "fmt"

// Worker takes the steps. One goroutine owns it.
type Worker struct {
	token   Token
	memory  *Memory
	logs    []*Log
	every   uint64
	boot    uint32
	counter uint64
	chain   Chain
	reason  error
}

// NewWorker begins a run on logs, all with the same history. Any number of
// logs does, also none. A history that does not hold together makes a broken
// worker, which counts on.
func NewWorker(token Token, memory *Memory, every int, logs []*Log) *Worker {
	w := &Worker{token: token, memory: memory, every: uint64(every), logs: logs, boot: 1}
	var last Record
	if len(logs) > 0 {
		last = logs[0].Last()
		w.boot = last.Boot + 1
	}
	w.chain = Start(last.Chain, token)
	for _, l := range logs[min(1, len(logs)):] {
		if err := l.catchUp(last); err != nil {
			w.Fail(err)
		}
	}
	return w
}

// catchUp makes the log end in last, as the first disk's does. A crash between
// the two writes may have left it one record behind, no more.
func (l *Log) catchUp(last Record) error {
	if l.last == last {
		return nil
	}
	if l.last.Sequence > 0 {
		if err := last.Follows(l.last); err != nil {
			return fmt.Errorf("%s and the first disk are of different instants: %w", l.name, err)
		}
	} else if last.Sequence != 1 {
		return fmt.Errorf("%s is empty, the first disk holds %d records", l.name, last.Sequence)
	}
	return l.Append(last)
}

// Step does one unit of work: rewrites dirty pages of memory, checks sweep
// other ones, and writes a record when it is time. After a failure it only
// counts, so that the disks stay as they were found.
func (w *Worker) Step(dirty, sweep int) {
	w.counter++
	if w.reason == nil {
		w.Fail(w.step(dirty, sweep))
	}
}

func (w *Worker) step(dirty, sweep int) error {
	if err := w.memory.Dirty(dirty); err != nil {
		return err
	}
	if err := w.memory.Sweep(sweep); err != nil {
		return err
	}
	previous := w.chain
	sample := w.memory.Sample(previous)
	w.chain = Link(previous, w.counter, sample)
	if len(w.logs) == 0 || w.counter%w.every != 0 {
		return nil
	}
	r := Record{
		Sequence: w.logs[0].Last().Sequence + 1, Boot: w.boot, Every: uint32(w.every),
		Counter: w.counter, Token: w.token, Written: w.memory.written, Pages: uint32(w.memory.pages),
		Previous: previous, Chain: w.chain, Sample: sample,
	}
	if err := r.Check(); err != nil {
		return fmt.Errorf("memory is of another instant: %w", err)
	}
	for _, l := range w.logs {
		if err := l.Append(r); err != nil {
			return err
		}
	}
	return nil
}

// Fail marks the worker broken, for ever. The first reason stays.
func (w *Worker) Fail(err error) {
	if w.reason == nil {
		w.reason = err
	}
}

// Broken is why the worker is broken, nil while all is well.
func (w *Worker) Broken() error { return w.reason }

// Status is the state after the last step, without the times.
func (w *Worker) Status() Status {
	s := Status{
		Token: w.token.String(), Counter: w.counter, Chain: w.chain.String(), Boots: w.boot,
		Memory: MemStatus{Pages: w.memory.pages, Written: w.memory.written},
		Disk:   LogStatus{Disks: len(w.logs)},
	}
	if w.reason != nil {
		s.Broken, s.Reason = true, w.reason.Error()
	}
	if len(w.logs) > 0 {
		last := w.logs[0].Last()
		s.Disk.Records = last.Sequence
		if last.Boot == w.boot {
			s.Disk.Counter = last.Counter
		}
	}
	return s
}
