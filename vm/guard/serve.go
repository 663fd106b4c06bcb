package guard

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// receive handles one packet of a peer; epoll reports the socket again if there
// are more, so one peer cannot keep the others waiting.
func (g *loop) receive(p *peer, events uint32) {
	if events&unix.EPOLLIN == 0 {
		g.drop(p)
		return
	}
	n, err := unix.Read(p.fd, g.in[:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if err != nil || n <= 0 || n > maxMessage {
		g.drop(p)
		return
	}
	r, err := decodeRequest(g.in[:n])
	out := g.out[:0]
	if err == nil {
		// Again right before it takes effect: the deadline may have passed since
		// the loop woke up, and a missed deadline must be enforced first.
		g.enforce(Now())
		out, err = g.answer(appendOK(out, r.tag), p, &r)
	}
	if err != nil {
		out = appendError(g.out[:0], r.tag, err)
	}
	if r.tag == 0 || !p.send(out) {
		g.drop(p)
	}
}

// drop closes a connection; a pause that it began ends with it.
func (g *loop) drop(p *peer) {
	serial := p.serial
	p.close()
	if g.pause.drop(serial) {
		g.resume("the agent left in a pause: guest continued")
	}
}

// answer carries out one request and appends what follows "ok".
func (g *loop) answer(out []byte, p *peer, r *request) ([]byte, error) {
	now := Now()
	switch r.verb {
	case verbStatus:
		s := g.report()
		return s.append(out), nil
	case verbKill:
		g.kill(ReasonKilled)
		return out, nil
	case verbTerminate:
		g.terminate(int64(r.args[0]))
		return out, nil
	case verbRevoke:
		err := g.lease.revoke(r.args[0])
		if err == nil {
			g.kill(ReasonRevoked)
		}
		return out, err
	case verbPauseEnd:
		ended, err := g.pause.end(r.args[0])
		var n uint64
		if ended {
			n = 1
		}
		return appendNumber(out, n), err
	}
	if g.ending != "" {
		return out, ErrGone
	}
	switch r.verb {
	case verbRenew:
		err := g.lease.renew(now, r.args[0], int64(r.args[1]))
		return g.granted(out, err)
	case verbClaim:
		err := g.lease.claim(now, r.args[0], int64(r.args[1]))
		return g.granted(out, err)
	case verbIsolation:
		if r.args[0] >= uint64(len(isolations)) {
			return out, ErrMalformed
		}
		g.isolation = isolations[r.args[0]]
		return out, nil
	case verbPauseBegin:
		if r.args[1] > math.MaxInt64 || g.launch.QMPSocket == "" {
			return out, ErrMalformed
		}
		if g.lease.standby {
			return out, ErrUnclaimed // a pause can end in a cont
		}
		return out, g.pause.begin(now, r.args[0], int64(r.args[1]), p.serial)
	}
	return out, ErrMalformed
}

func (g *loop) granted(out []byte, err error) ([]byte, error) {
	if err != nil {
		return out, err
	}
	g.extend()
	return appendNumber(out, uint64(g.lease.deadline)), nil
}

func (g *loop) report() Status {
	s := Status{
		GuardPID: os.Getpid(), PID: g.child.pid, StartTime: g.child.start,
		UUID: g.launch.Guest.UUID, LaunchID: g.launch.ID,
		Epoch: g.lease.epoch, Deadline: g.lease.deadline, Standby: g.lease.standby,
		Frozen: g.frozen, Freezes: g.freezes, FreezeNS: g.freezeNS, Ending: g.ending != "",
		PauseEnded: g.pause.open && g.pause.ended, LastPause: g.pause.last, Resuming: g.pause.resuming,
		MemoryLocked: g.hard.locked, RealTime: g.hard.realTime,
	}
	if g.pause.open {
		s.Pause = g.pause.id
	}
	s.Stopped = g.frozen && g.child.stopped()
	return s
}
