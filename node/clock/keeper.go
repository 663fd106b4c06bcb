package clock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// Allowed is how late pauses may make a clock before it is set at once, and
	// atLatest how long less than that is left standing.
	Allowed  = 100 * time.Millisecond
	atLatest = time.Minute
	// tolerated is what is not worth a step: asking itself takes that long on a
	// busy host.
	tolerated = 50 * time.Millisecond
	// near is how close a clock that was just set has to be.
	near = time.Second

	askEvery   = 10 * time.Second       // while the agent answers
	retryFirst = 250 * time.Millisecond // after a resume, or for the first time
	retryLast  = 30 * time.Second
	look       = 250 * time.Millisecond // how soon lost time is seen
	bound      = 2 * time.Second        // of one contact
	// patience is how long a clock that cannot be set is kept quiet about.
	patience = 30 * time.Second
	// noted is the lost time that is worth an event when there is no agent.
	noted = time.Second
)

// Agent is the guest agent; qga.Client is one.
type Agent interface {
	Time(context.Context) (time.Time, error)
	SetTime(context.Context, time.Time) error
	Close() error
}

// Config says how a guest is reached and who is told.
type Config struct {
	// Dial reaches the guest's agent.
	Dial func(context.Context) (Agent, error)
	// Running says whether the guest executes.
	Running func(context.Context) bool
	// Set is told of a clock that was set after a resume, Late of one that is
	// known or bound to be late and cannot be set: once until it is set again.
	Set  func(late time.Duration)
	Late func(lost time.Duration, why error)
	// Resumed is set if the guest goes on from a checkpoint: its clock is looked
	// at as soon as possible.
	Resumed bool
	// Now is this host's clock.
	Now func() time.Time
}

// Status is what is known of the guest's agent. Behind is how late the guest's
// clock was at Seen; less than zero: it was ahead.
type Status struct {
	Answers bool
	Seen    time.Time // zero: it never answered
	Behind  time.Duration
	Reason  string // why it does not answer
}

// Keeper keeps one guest's clock. Run owns the conversation with the agent.
type Keeper struct {
	config Config
	agent  Agent // nil: to be dialled; Run's
	// behind is how late the clock was when it was to be set first since it was known
	// good: who could not be asked afterwards may have set it. Run's.
	behind time.Duration

	mu     sync.Mutex
	lost   time.Duration // since the clock was last known good
	since  time.Time     // when lost became more than nothing
	owed   bool          // resumed, not looked at yet
	told   bool          // Late was called
	status Status
}

// New makes a keeper; nothing happens before Run.
func New(c Config) *Keeper {
	return &Keeper{config: c, owed: c.Resumed, since: c.Now()}
}

// Lost says that the guest stood still for d.
func (k *Keeper) Lost(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost == 0 && !k.owed {
		k.since = k.config.Now()
	}
	k.lost += max(d, 0)
}

// Status says whether the agent answers.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// due says whether the clock is to be looked at now because time was lost.
func (k *Keeper) due() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.owed || k.lost >= Allowed || k.lost > 0 && k.config.Now().Sub(k.since) >= atLatest
}

// Run keeps the clock until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	defer k.hangUp()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	retry, next := retryFirst, time.Now()
	failing := false
	for {
		if now := time.Now(); !now.Before(next) || !failing && k.due() {
			if !k.config.Running(ctx) {
				next = now.Add(look)
			} else if err := k.contact(ctx); err != nil && ctx.Err() == nil {
				failing = true
				k.failed(err)
				next, retry = time.Now().Add(retry), min(2*retry, retryLast)
			} else {
				failing, retry, next = false, retryFirst, time.Now().Add(askEvery)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// contact asks the agent once, and sets the clock if it is late by our doing.
func (k *Keeper) contact(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if k.agent == nil {
		if k.agent, err = k.config.Dial(ctx); err != nil {
			k.agent = nil
			return err
		}
	}
	k.mu.Lock()
	lost, owed := k.lost, k.owed
	k.mu.Unlock()
	late, err := k.measure(ctx)
	if err != nil {
		return err
	}
	if (owed || lost > 0) && late > tolerated {
		k.behind = max(k.behind, late)
		if late, err = k.set(ctx); err != nil {
			return err
		}
	}
	if owed && k.behind > 0 {
		k.config.Set(k.behind)
	}
	k.behind = 0
	k.good(lost, late)
	return nil
}

// measure is how late the guest's clock is.
func (k *Keeper) measure(ctx context.Context) (time.Duration, error) {
	asked := k.config.Now()
	guest, err := k.agent.Time(ctx)
	if err != nil {
		return 0, err
	}
	now := k.config.Now()
	return now.Add(-now.Sub(asked) / 2).Sub(guest), nil
}

// set sets the clock and says how late it is then. What counts is what the
// clock shows: an agent also complains of an RTC that it could not write.
func (k *Keeper) set(ctx context.Context) (time.Duration, error) {
	refused := k.agent.SetTime(ctx, k.config.Now())
	late, err := k.measure(ctx)
	if err != nil {
		return 0, errors.Join(refused, err)
	}
	if late > near {
		return 0, errors.Join(fmt.Errorf("the clock was set and is %v behind", late.Round(time.Millisecond)), refused)
	}
	return late, nil
}

// good notes that the clock was right when so much had been lost.
func (k *Keeper) good(lost, late time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.config.Now()
	k.lost -= lost
	k.since, k.owed, k.told = now, false, false
	k.status = Status{Answers: true, Seen: now, Behind: late}
}

// failed notes that the agent could not be used, and tells of it once where the
// guest's clock suffers.
func (k *Keeper) failed(err error) {
	k.hangUp()
	k.mu.Lock()
	k.status.Answers, k.status.Reason = false, err.Error()
	lost := k.lost
	tell := !k.told && k.config.Now().Sub(k.since) >= patience && (k.owed || k.lost >= noted)
	k.told = k.told || tell
	k.mu.Unlock()
	if tell {
		k.config.Late(lost, err)
	}
}

// hangUp ends the conversation: a new one begins in step.
func (k *Keeper) hangUp() {
	if k.agent != nil {
		_ = k.agent.Close()
		k.agent = nil
	}
}
