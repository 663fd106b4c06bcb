package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/node/peer"
	"vmctl/node/wire"
	"vmctl/vm"
	"vmctl/vm/trial"
)

// purposeTrial names the connections on which a guest's owner finds out whether
// the peer's QEMU could load its state.
const purposeTrial = "trial"

// How often it is asked: a QEMU may be upgraded at any time, on either side.
const (
	trialEvery      = 20 * time.Second
	trialRetryFirst = time.Second
	trialRetryLast  = 30 * time.Second
)

// Messages: the owner asks who loads, and sends a state if it does not know
// what became of that pair.
type trialQuestion struct{}

type trialSelf struct {
	QEMU string `msgpack:"qemu"`
}

type trialVerdict struct {
	QEMU   string `msgpack:"qemu"`
	Loads  bool   `msgpack:"loads"`
	Reason string `msgpack:"reason"`
}

// trials holds what was found out, and has one trial made at a time.
type trials struct {
	// Trials cost half a second of a CPU, so one is made at a time; those that the
	// peer asks for have a turn of their own, for it may wait for us.
	making, loading turn

	mu    sync.Mutex
	known map[trialPair]trialVerdict
	info  os.FileInfo // of the QEMU that identity is of
	id    string
}

// turn lets one in.
type turn chan struct{}

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) leave() { <-t }

func newTrials() *trials {
	return &trials{making: make(turn, 1), loading: make(turn, 1), known: map[trialPair]trialVerdict{}}
}

// openTrials begins with nothing known, and nothing left of an earlier agent.
func (n *Node) openTrials() *trials {
	if err := trial.Sweep(n.trialPlace()); err != nil {
		n.log.Warn("trials of an earlier agent left something behind", "error", err)
	}
	return newTrials()
}

// trialPair is what a verdict is about: a shape and the programs of both sides.
type trialPair struct{ shape, saves, loads string }

// identity is that of the QEMU that would be started now.
func (t *trials) identity(program string) (string, error) {
	info, err := os.Stat(program)
	if err != nil {
		return "", fmt.Errorf("look at QEMU's program: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.info != nil && os.SameFile(info, t.info) && info.ModTime().Equal(t.info.ModTime()) && info.Size() == t.info.Size() {
		return t.id, nil
	}
	id, err := trial.Identity(program)
	if err == nil {
		t.info, t.id = info, id
	}
	return id, err
}

func (t *trials) recall(pair trialPair) (trialVerdict, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	verdict, ok := t.known[pair]
	return verdict, ok
}

func (t *trials) learn(pair trialPair, verdict trialVerdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[pair] = verdict
}

func (n *Node) trialPlace() trial.Place {
	return trial.Place{Host: n.host, Runtime: n.config.RuntimeDir, RAMDir: n.config.RAMDir}
}

// keepTried knows whether the peer could resume a running guest, while it runs.
func (g *guest) keepTried(ctx context.Context) {
	name := g.name()
	defer g.n.alarms.set("state-would-not-load", name, false, "")
	g.locked(func() { g.status.trial = api.Trial{State: api.TrialUnknown} })
	retry := trialRetryFirst
	for ctx.Err() == nil {
		found, wait := api.Trial{State: api.TrialUnknown}, trialEvery
		if g.spec().Protection.Level == vm.ProtectResume {
			verdict, err := g.try(ctx)
			switch {
			case err != nil:
				found.Reason, wait, retry = oneLine(err.Error()), retry, min(2*retry, trialRetryLast)
			case verdict.Loads:
				found.State, retry = api.TrialLoads, trialRetryFirst
			default:
				found.State, found.Reason, retry = api.TrialRefused, oneLine(verdict.Reason), trialRetryFirst
			}
		} else {
			wait = trialRetryFirst
		}
		if ctx.Err() != nil {
			return
		}
		g.tellTrial(name, found)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// tellTrial tells people what a trial found out. What was known stays known while
// the peer cannot be asked: it is about programs, not about links.
func (g *guest) tellTrial(name string, found api.Trial) {
	g.mu.Lock()
	before := g.status.trial
	g.mu.Unlock()
	if found.State == api.TrialUnknown && before.State == api.TrialLoads && g.spec().Protection.Level == vm.ProtectResume {
		return
	}
	g.locked(func() { g.status.trial = found })
	g.n.alarms.set("state-would-not-load", name, found.State == api.TrialRefused,
		fmt.Sprintf("the peer could not resume %s, only boot it from its disks: %s; make QEMU and CPU model of both nodes agree", name, found.Reason))
}

// try asks the peer, and has it load a state if that is news.
func (g *guest) try(ctx context.Context) (verdict trialVerdict, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("find out whether the peer could resume it: %w", err)
		}
	}()
	t, shape := g.n.trials, trial.Shape(g.spec())
	if err := t.making.take(ctx); err != nil {
		return verdict, err
	}
	defer t.making.leave()
	ctx, cancel := context.WithTimeout(ctx, 3*trial.Bound)
	defer cancel()
	conn, err := g.n.members.dial(ctx, purposeTrial, g.id, wire.Options{ReadTimeout: 2 * trial.Bound, WriteTimeout: 10 * time.Second})
	if err != nil {
		return verdict, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var self trialSelf
	if err := peer.Ask(conn, trialQuestion{}, &self); err != nil {
		return verdict, err
	}
	pair := trialPair{shape: trial.Key(shape), loads: self.QEMU}
	if pair.saves, err = t.identity(g.n.host.QEMU); err != nil {
		return verdict, err
	}
	if verdict, ok := t.recall(pair); ok {
		return verdict, nil
	}
	state, err := trial.Save(ctx, g.n.trialPlace(), shape)
	if err != nil {
		return verdict, err
	}
	if err := peer.Ask(conn, state, &verdict); err != nil {
		return verdict, err
	}
	if verdict.QEMU != pair.loads {
		return verdict, errors.New("the peer's QEMU was changed meanwhile")
	}
	t.learn(pair, verdict)
	g.n.journal.record(info, "state-tried", g.name(), fmt.Sprintf("the peer's QEMU was given a state of %s's machine to load; it loads: %t %s", g.name(), verdict.Loads, verdict.Reason))
	return verdict, nil
}

// serveTrial loads the owner's trial state as this node would the guest's.
func (gs *guests) serveTrial(ctx context.Context, conn *wire.Conn, hello wire.Hello) {
	conn.SetTimeouts(2*trial.Bound, 10*time.Second)
	var id string
	err := peer.Answer(conn, &trialQuestion{}, func() (_ any, err error) {
		if gs.get(hello.Guest) == nil {
			gs.n.exchange.soon()
			return nil, &wire.Refused{Code: string(api.NotFound), Message: "the guest is not known here yet"}
		}
		id, err = gs.n.trials.identity(gs.n.host.QEMU)
		return trialSelf{QEMU: id}, err
	})
	if err != nil {
		gs.n.log.Info("trial not made", "error", err)
		return
	}
	var state trial.State
	err = peer.Answer(conn, &state, func() (any, error) {
		g := gs.get(hello.Guest)
		if g == nil {
			return nil, &wire.Refused{Code: string(api.NotFound), Message: "the guest is not known here any more"}
		}
		if err := gs.n.trials.loading.take(ctx); err != nil {
			return nil, err
		}
		defer gs.n.trials.loading.leave()
		err := trial.Load(ctx, gs.n.trialPlace(), trial.Shape(g.spec()), state)
		if err != nil && !errors.Is(err, trial.ErrRefused) {
			return nil, err
		}
		verdict := trialVerdict{QEMU: id, Loads: err == nil}
		if err != nil {
			verdict.Reason = oneLine(err.Error())
		}
		return verdict, nil
	})
	if err != nil {
		gs.n.log.Debug("trial ended", "vm", gs.nameOf(ha.GuestID(hello.Guest)), "reason", err)
	}
}
