package watchdog

import (
	"context"
	"errors"
	"time"

	"vmctl/vm/guard"
)

// answerBound is how long a guard may take to answer, which it does at once.
const answerBound = 50 * time.Millisecond

// follow asks a guard again and again, until its QEMU is gone. A guard that does not
// answer, or was killed, leaves what it said last.
func (k *keeper) follow(ctx context.Context, id int, c *guard.Client) {
	defer c.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(k.look(ctx, id, c))
		case <-c.Dead():
			k.send(ctx, report{id: id, gone: true})
			return
		case <-ctx.Done():
			return
		}
	}
}

func (k *keeper) look(ctx context.Context, id int, c *guard.Client) time.Duration {
	bound, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	asked := guard.Now()
	s, err := c.Status(bound)
	if err != nil {
		if errors.Is(err, guard.ErrDetached) {
			return time.Second // for good; the end of QEMU is what is waited for
		}
		return answerBound / 5
	}
	r := report{id: id, watched: watched{deadline: s.Deadline}}
	if s.Stopped {
		r.quiet = asked
	}
	k.send(ctx, r)
	return lookAgain(s, guard.Now())
}

func (k *keeper) send(ctx context.Context, r report) {
	select {
	case k.reports <- r:
	case <-ctx.Done():
	}
}
