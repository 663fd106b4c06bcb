package chaos

import (
	"context"
	"sync"
	"syscall"
	"time"

	"vmctl/node/e2e/lab"
)

// power is one host's switch, and what systemd is on a real one: it starts the
// agent again whenever it has ended.
type power struct {
	*lab.Host
	log func(string, ...any)

	mu      sync.Mutex
	on      bool
	holdOff time.Time // no start of the agent before
	meant   bool      // the agent's end was ours
	deaths  int       // ends that were not ours
}

// restartAfter is RestartSec of the packaged unit.
const restartAfter = 200 * time.Millisecond

// supervise starts the agent again until ctx ends.
func (p *power) supervise(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.look()
		}
	}
}

func (p *power) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.Gone():
	default:
		return
	}
	if !p.on {
		return
	}
	if !p.meant {
		p.meant, p.deaths = true, p.deaths+1
		p.log("agent of %s ENDED BY ITSELF; its last words: %s", p.Name, lab.Tail(p.LogFile(), 2))
		p.holdOff = time.Now().Add(restartAfter)
	}
	if time.Now().Before(p.holdOff) {
		return
	}
	if err := p.Launch(); err != nil {
		p.log("agent of %s not started: %v", p.Name, err)
		return
	}
	p.meant = false
}

// end ends the agent by a signal; it is not started again before down is over.
func (p *power) end(s syscall.Signal, down time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on || p.meant {
		return false
	}
	if p.Signal(s) != nil {
		return false
	}
	p.meant, p.holdOff = true, time.Now().Add(max(down, restartAfter))
	return true
}

// cut takes the power away.
func (p *power) cut(ctx context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on {
		return false, nil
	}
	p.on = false
	return true, p.PowerCut(ctx)
}

// back gives it back; the supervisor starts the agent.
func (p *power) back(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		return nil
	}
	p.on, p.meant, p.holdOff = true, true, time.Time{}
	return p.Plug(ctx)
}

// signal sends a signal to one kind of process of the guest here and returns
// the process it went to, 0 if there is none.
func (p *power) signal(ctx context.Context, what string, s syscall.Signal) int {
	list, err := p.Processes(ctx)
	if err != nil {
		return 0
	}
	for _, process := range list {
		if process.Is(what) && syscall.Kill(process.PID, s) == nil {
			return process.PID
		}
	}
	return 0
}
