package node

import (
	"context"
	"fmt"
	"time"

	"vmctl/ha/recovery"
	"vmctl/node/api"
	"vmctl/node/clock"
	"vmctl/vm"
	"vmctl/vm/qga"
)

// clockOf makes the keeper of a running guest's clock; nil if the guest has no
// port for an agent.
func (g *guest) clockOf(m *machine) *clock.Keeper {
	if on := g.spec().GuestAgent; on != nil && !*on {
		return nil
	}
	name := g.name()
	resumed := !m.adopted && g.attempt != nil && g.attempt.How == recovery.Resume
	keeper := clock.New(clock.Config{
		Dial: func(ctx context.Context) (clock.Agent, error) {
			client, err := qga.Dial(ctx, g.layout.GuestAgent())
			if err != nil {
				return nil, err
			}
			return client, nil
		},
		Running: func(ctx context.Context) bool {
			ctx, cancel := context.WithTimeout(ctx, showBound)
			defer cancel()
			state, err := m.RunState(ctx)
			return err == nil && state == vm.StateRunning
		},
		Set: func(late time.Duration) {
			g.n.journal.record(info, "clock-set", name, fmt.Sprintf("the clock of %s was %.1f s behind and is set by its guest agent", name, late.Seconds()))
		},
		Late: func(lost time.Duration, why error) {
			behind := fmt.Sprintf("%.1f s behind for checkpoints", lost.Seconds())
			if resumed {
				behind = "behind by the time it was away"
			}
			g.n.journal.record(warning, "clock-behind", name, fmt.Sprintf("the clock of %s is %s, unless NTP in the guest sets it; run qemu-guest-agent in it: %v", name, behind, why))
		},
		Resumed: resumed,
		Now:     time.Now,
	})
	if m.adopted { // nobody has kept count
		keeper.Lost(clock.Allowed)
	}
	return keeper
}

// keepClock keeps the guest's clock from falling behind by what it stands
// still, for whatever reason, while QEMU goes on.
func (g *guest) keepClock(ctx context.Context, m *machine) {
	if m.clock == nil {
		return
	}
	events, cancel := m.monitor.Events()
	defer cancel()
	ended := start(ctx, m.clock.Run)
	defer ended()
	var stopped time.Time
	for {
		select {
		case event, open := <-events:
			switch {
			case !open:
				return
			case event.Name == "STOP":
				stopped = event.Time
			case event.Name == "RESUME" && !stopped.IsZero():
				m.clock.Lost(event.Time.Sub(stopped))
				stopped = time.Time{}
			}
		case <-ctx.Done():
			return
		}
	}
}

// viewAgent is what people see of the agent inside the guest.
func viewAgent(k *clock.Keeper) *api.GuestAgent {
	if k == nil {
		return nil
	}
	status := k.Status()
	view := &api.GuestAgent{Answers: status.Answers, Reason: oneLine(status.Reason)}
	if !status.Seen.IsZero() {
		behind := status.Behind.Seconds()
		view.Seen, view.ClockBehindSeconds = &api.Time{Time: status.Seen}, &behind
	}
	return view
}
