package guard

import (
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// refreeze is how often the stop is sent again while the lease is expired: a
// stray SIGCONT would thaw the guest.
const refreeze = 10 * time.Millisecond

// scanMargin is the time to the deadline in which only the deadline matters.
const scanMargin = 500 * time.Millisecond

// loop owns every state of a running guard. Its methods run on one thread, and
// none of them waits for anything but the epoll.
type loop struct {
	launch *Launch
	child  *child
	peers  *peers
	lease  lease
	// isolation is the answer to the lease's end from now on.
	isolation Isolation
	pause     pauses
	side      *side
	hard      hardened

	epoll  int
	expiry alarm // lease
	later  alarm // end of a pause, end of patience
	events [maxPeers + 8]unix.EpollEvent
	in     [maxMessage + 1]byte
	out    [maxMessage]byte

	frozen   bool
	resend   int64 // next time to freeze again
	freezes  uint64
	freezeNS int64

	laterAt int64 // what the later alarm is set to

	ending Reason // empty: not being ended
	killAt int64  // Forever: no SIGKILL is due
	status syscall.WaitStatus
	reaped bool
}

func newLoop(l *Launch, p *peers, s *side) (*loop, error) {
	g := &loop{
		launch: l, peers: p, side: s, pause: newPauses(), killAt: Forever, laterAt: Forever, epoll: -1,
		lease:     lease{epoch: l.Epoch, deadline: l.DeadlineNS, standby: l.Standby},
		isolation: l.Isolation,
	}
	var err error
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	if g.expiry, err = newAlarm(); err != nil {
		return nil, fmt.Errorf("create lease timer: %w", err)
	}
	if g.later, err = newAlarm(); err != nil {
		return nil, fmt.Errorf("create pause timer: %w", err)
	}
	for _, fd := range []int{g.expiry.fd, g.later.fd, s.event} {
		if err := g.watch(fd, unix.EPOLLIN); err != nil {
			return nil, err
		}
	}
	// Edge-triggered: a connection that cannot be accepted (no descriptors left)
	// must not make a real-time thread spin.
	return g, g.watch(p.listen, unix.EPOLLIN|unix.EPOLLET)
}

func (g *loop) watch(fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if err := unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	return nil
}

// run is the life of a guard from the spawn until QEMU is reaped.
func (g *loop) run() error {
	if err := g.watch(g.child.pidfd, unix.EPOLLIN); err != nil {
		return err
	}
	g.rehearse()
	if err := g.armExpiry(); err != nil {
		return fmt.Errorf("arm lease timer: %w", err)
	}
	for !g.reaped {
		n, err := unix.EpollWait(g.epoll, g.events[:], -1)
		g.enforce(Now()) // before anything is read
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for events: %w", err)
		}
		for i := range max(n, 0) {
			g.dispatch(int(g.events[i].Fd), g.events[i].Events)
		}
		g.endings(Now())
	}
	return nil
}

func (g *loop) dispatch(fd int, events uint32) {
	switch fd {
	case g.expiry.fd:
		g.expiry.clear()
	case g.later.fd:
		g.later.clear()
	case g.side.event:
		g.sideNews()
	case g.child.pidfd:
		// No thread of QEMU runs any more: there is nothing left to be on time for.
		// To reap at real-time priority can hold up the whole processor, since the
		// kernel spins until a reader of QEMU's /proc directory lets go of it.
		ordinary()
		g.status, g.reaped = g.child.reap()
	case g.peers.listen:
		for {
			p, more := g.peers.accept()
			if p != nil && g.watch(p.fd, unix.EPOLLIN) != nil {
				p.close()
			}
			if !more {
				return
			}
		}
	default:
		if p := g.peers.find(fd); p != nil {
			g.receive(p, events)
		}
	}
}

// enforce freezes the guest if the lease has expired.
func (g *loop) enforce(now int64) {
	if g.reaped || !g.lease.expired(now) || g.frozen && now < g.resend {
		return
	}
	g.resend = now + int64(refreeze)
	if g.frozen && g.child.stopped() {
		return // a stop sent to a stopped process would change nothing
	}
	g.child.freeze()
	if g.frozen {
		return
	}
	g.frozen = true
	g.freezes++
	g.freezeNS = Now() - g.lease.deadline
	switch {
	case g.ending != "":
		g.kill(g.ending) // a frozen QEMU cannot end by itself
	case g.isolation == Stop:
		g.kill(ReasonIsolated)
		g.side.note(slog.LevelWarn, "lease expired: guest stopped", g.freezeNS)
	default:
		g.side.note(slog.LevelWarn, "lease expired: guest frozen", g.freezeNS)
	}
}

// rehearse goes the way that enforce goes at a deadline, without effect: its code,
// its data and room on the stack have to be in memory, and locked there, before the
// host may be short of either.
func (g *loop) rehearse() {
	deepen()
	g.expiry.clear()
	g.enforce(0)
	g.child.touch()
	g.child.toAll(0)
	_ = g.child.stopped()
	g.side.note(slog.LevelDebug, "guard is ready", 0)
}

// deepen makes the stack larger than anything needs at a deadline: to grow it would
// take pages that nobody has locked yet.
//
//go:noinline
func deepen() byte {
	var room [8 << 10]byte
	return room[int(Now())&(len(room)-1)]
}

// extend puts a new deadline into force and lets the guest run.
func (g *loop) extend() {
	if g.frozen {
		g.frozen = false
		_ = g.child.signal(unix.SIGCONT)
		g.side.note(slog.LevelInfo, "lease renewed: guest thawed", 0)
	}
	if g.lease.deadline != Forever && g.lease.deadline-Now() > int64(scanMargin) {
		g.child.scan() // while there is time, for when there is none
	}
	if err := g.armExpiry(); err != nil {
		// Cannot happen with a valid descriptor and time. Without a timer the
		// lease would not be enforced, so the guest must not run.
		g.kill(ReasonKilled)
	}
}

func (g *loop) armExpiry() error { return g.expiry.set(g.lease.deadline, int64(refreeze)) }

// endings does what is due by time but is not about the lease.
func (g *loop) endings(now int64) {
	if g.pause.expire(now) {
		g.resume("pause exceeded its bound: guest continued")
	}
	if now >= g.killAt {
		g.kill(g.ending)
	}
	if at := min(g.pause.due, g.killAt); at != g.laterAt && g.later.set(at, 0) == nil {
		g.laterAt = at
	}
}

// kill ends QEMU at once. The reason given first stands.
func (g *loop) kill(why Reason) {
	if g.ending == "" {
		g.ending = why
	}
	g.killAt = Forever
	_ = g.child.signal(unix.SIGKILL)
}

// terminate asks QEMU to end, and kills it after the bound. A frozen QEMU would
// not hear it, and must not be thawed to hear it.
func (g *loop) terminate(bound int64) {
	if g.ending == "" {
		g.ending = ReasonTerminated
	}
	if g.frozen {
		g.kill(g.ending)
		return
	}
	now := Now()
	g.killAt = min(g.killAt, now+min(bound, Forever-1-now))
	_ = g.child.signal(unix.SIGTERM)
}

// resume has the guest continued. The pause is marked as ended already.
func (g *loop) resume(why string) {
	g.side.note(slog.LevelWarn, why, int64(g.pause.id))
	if g.pause.wantResume() {
		g.side.askResume()
	}
}

func (g *loop) sideNews() {
	terminate, resumed := g.side.news()
	if terminate {
		g.terminate(int64(g.launch.StopBound()))
	}
	if resumed && g.pause.resumeDone() {
		g.side.askResume()
	}
}

func (g *loop) close() {
	for _, fd := range []int{g.epoll, g.expiry.fd, g.later.fd} {
		_ = unix.Close(fd)
	}
}
