package notify

import (
	"context"
	"sync"
	"time"
)

// Status is how a target fares.
type Status struct {
	Target    string // without secrets
	Delivered int
	Waiting   int
	Lost      int       // refused, or pushed out of a full queue
	Failing   time.Time // since when it takes nothing; zero: it works
	Reason    error     // of the last delivery that failed
}

// Status lists the targets in the order of the configuration.
func (n *Notifier) Status() []Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]Status, 0, len(n.targets))
	for _, t := range n.targets {
		list = append(list, Status{
			Target: t.name(), Delivered: t.told, Waiting: len(t.queue.items), Lost: t.queue.lost, Failing: t.failing, Reason: t.reason,
		})
	}
	return list
}

// fails notes that t takes nothing now.
func (n *Notifier) fails(t *target, since time.Time, reason error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.failing, t.reason = since, reason
}

// Result is what became of a test.
type Result struct {
	Target string
	Took   time.Duration
	Err    error
}

// Test delivers e to all targets at once, past their queues and once only, and
// waits for each target's timeout at most.
func (n *Notifier) Test(ctx context.Context, e Event) []Result {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	n.mu.Lock()
	d := n.delivery(e.tidy(), 0)
	n.mu.Unlock()
	results := make([]Result, len(n.targets))
	var tests sync.WaitGroup
	for i, t := range n.targets {
		tests.Go(func() {
			began := time.Now()
			deliver := t.send
			if tester, ok := t.sender.(tester); ok {
				deliver = tester.test
			}
			err := deliver(ctx, d)
			results[i] = Result{Target: t.name(), Took: time.Since(began), Err: err}
		})
	}
	tests.Wait()
	return results
}

// tester is a sender that can say more of a delivery than whether it must be
// tried again.
type tester interface {
	test(ctx context.Context, d Delivery) error
}

// Settle waits until every queue is empty, or ctx ends: a target that is away
// is not waited for beyond that. Nothing waits for the end of a window any more.
func (n *Notifier) Settle(ctx context.Context) {
	n.mu.Lock()
	for _, t := range n.repeats.end() {
		n.summarize(t)
	}
	n.mu.Unlock()
	ticker := time.NewTicker(settleEvery)
	defer ticker.Stop()
	for !n.settled() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// settleEvery is how often Settle looks.
const settleEvery = 10 * time.Millisecond

// settled says whether nothing waits that could be delivered soon.
func (n *Notifier) settled() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.targets {
		if len(t.queue.items) > 0 && t.failing.IsZero() {
			return false
		}
	}
	return true
}
