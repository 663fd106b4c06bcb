package snapshot

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"vmctl/snapshot/replica"
	"vmctl/snapshot/shmtest"
)

var (
	cutsPerPoint = flag.Int("cuts", 2, "power cuts at each change of TestCutAtEveryChange")
	cutEnding    = flag.String("cuts.ending", "", "the only ending of TestCutAtEveryChange")
)

// endings are the ways in which a replica's life ends.
var endings = map[string]func(g *teller) error{
	"resume": func(g *teller) error {
		g.taking = true
		_, err := g.s.TakeOver(context.Background(), 7)
		if err == nil {
			g.floor, g.activating = 7, true
			_, err = g.s.Activate(context.Background())
			g.taken = err == nil
		}
		return err
	},
	"boot": func(g *teller) error {
		err := g.s.TakeOverDisks(context.Background(), 7)
		if err == nil {
			g.floor = 7
		}
		return err
	},
	"void": func(g *teller) error {
		g.voiding = true
		err := g.sender.Void(context.Background(), "the user stopped it")
		g.voided = err == nil
		return err
	},
}

// tell is a replica's life until something fails: it is filled, checkpoints are
// committed, abandoned and folded, the agent and the links come anew.
func (g *teller) tell(ending string) error {
	var err error
	if g.s, err = OpenStandby(context.Background(), g.config); err != nil {
		return err
	}
	defer func() {
		if g.disks != nil {
			_ = g.disks.Close()
		}
		_ = g.s.Close()
	}()
	for _, step := range append(g.steps(ending), func() error { return endings[ending](g) }) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (g *teller) steps(ending string) []func() error {
	switch {
	case strings.HasPrefix(ending, "resync"):
		return g.resyncSteps()
	case strings.HasPrefix(ending, "grown"):
		return g.grownSteps()
	}
	return []func() error{
		g.link, g.fill, func() error { return g.scribble(2) }, g.flush,
		g.agent, g.checkpoint, // 1: full
		func() error { return g.scribble(4) }, g.flush, func() error { return g.scribble(2) },
		g.checkpoint, // 2: a delta
		func() error { return g.scribble(2) }, g.abandon, g.abandon,
		g.checkpoint, // 5: folds 3 and 4 into 2
		g.link, func() error { return g.scribble(3) },
		g.agent, g.checkpoint, // 6: full, of a new agent
		func() error { return g.scribble(3) }, g.abandon, g.flush, func() error { return g.scribble(2) },
	}
}

// TestCutAtEveryChange ends the world at every change that the receiving side
// makes to a file - every write, sync, rename and removal of undo logs, staging,
// commit, retiring, generation and takeover - once as the death of the process,
// and several times as a power cut, which may drop or tear whatever was not
// synced. What is there when it is opened again is a legal state.
//
//   - process: checkpoint N or the one under way, memory and disks of the same
//     one; booted, every acknowledged write;
//   - power: never resumed (its memory is gone); everything that a commit, a flush
//     or a fence has acknowledged is there; a takeover that had begun to roll back
//     leaves all disks at N, or none touched; it can be a replica again;
//   - in a resync, both: the disks as they were before it, or all that is
//     acknowledged once it is over, never a mixture.
func TestCutAtEveryChange(t *testing.T) {
	if underRace {
		t.Skip("thousands of short lives; make sim lives them without the race detector")
	}
	var points, syncs atomic.Int64
	t.Run("cut", func(t *testing.T) {
		for ending := range endings {
			if *cutEnding != "" && ending != *cutEnding {
				continue
			}
			last := len(lifeOf(t, ending))
			first := 1
			if ending != "resume" && ending != "resync" && ending != "grown, booted" {
				first = last * 4 / 5 // what is before was cut with the other ending
			}
			for lane := range cutLanes {
				t.Run(fmt.Sprintf("%s %d", ending, lane), func(t *testing.T) {
					t.Parallel()
					for at := first + lane; at <= last+1 && !t.Failed(); at += cutLanes {
						cutAt(t, ending, at, &points, &syncs)
					}
				})
			}
		}
	})
	t.Logf("%d points crossed, %d of them syncs and renames; the process died at each, and %d power cuts", points.Load(), syncs.Load(), points.Load()*int64(*cutsPerPoint))
	if syncs.Load() < 60 && *cutEnding == "" {
		t.Errorf("only %d syncs and renames: the seam does not see them", syncs.Load())
	}
}

// cutLanes is how many tests share the points of an ending.
const cutLanes = 4

// cutAt ends the world at one change, and in the middle of it if it is a write.
func cutAt(t *testing.T, ending string, at int, points, syncs *atomic.Int64) {
	for _, torn := range []bool{false, true} {
		c := newCut(t, ending, at, torn)
		if torn && !strings.HasPrefix(c.what, "write") {
			return
		}
		points.Add(1)
		if strings.HasPrefix(c.what, "sync") || strings.HasPrefix(c.what, "rename") {
			syncs.Add(1)
		}
		c.power(uint64(at % 2)) // all or nothing
		for seed := range uint64(*cutsPerPoint - 1) {
			c.power(2 + uint64(at) + seed)
		}
		c.death()
	}
}

// lifeOf is what a life changes when nothing happens to it.
func lifeOf(t *testing.T, ending string) []string {
	t.Helper()
	dir := shmtest.TempDir(t)
	config := standbyIn(filepath.Join(dir, "disk"), filepath.Join(dir, "ram"))
	must(t, os.Mkdir(filepath.Join(dir, "disk"), 0o700))
	p := newPlatter(t, filepath.Join(dir, "disk"), 0, false)
	config.files = p.files()
	g := newTeller(t, 1, config)
	if err := g.tell(ending); err != nil || g.acked != 6 && !strings.HasPrefix(ending, "resync") && !strings.HasPrefix(ending, "grown") {
		t.Fatalf("undisturbed: checkpoint %d, %v", g.acked, err)
	}
	return p.trace
}

// cut is a life that was cut off.
type cut struct {
	*teller
	dir  string
	p    *platter
	what string // the change that was not made
}

func newCut(t *testing.T, ending string, at int, torn bool) *cut {
	t.Helper()
	c := &cut{dir: shmtest.TempDir(t)}
	disk := filepath.Join(c.dir, "disk")
	must(t, os.Mkdir(disk, 0o700))
	config := standbyIn(disk, filepath.Join(c.dir, "ram"))
	c.p = newPlatter(t, disk, at, torn)
	config.files = c.p.files()
	c.teller = newTeller(t, 1, config)
	_ = c.tell(ending)
	c.p.cut()
	c.what = c.p.trace[min(at, len(c.p.trace))-1]
	c.what = fmt.Sprintf("%s, cut at change %d torn %v", c.what, at, torn)
	if ending == "resume" && at > len(c.p.trace) && !c.taken {
		t.Fatal("it lived to its end and was not taken over")
	}
	return c
}

// at is the same replica elsewhere, after another boot or not.
func (c *cut) at(root, ram, bootID string) StandbyConfig {
	config := standbyIn(root, ram)
	config.BootID = bootID
	for i, d := range c.config.Disks {
		config.Disks[i].Size, config.Disks[i].Was = d.Size, d.Was
	}
	return config
}

// death opens what the death of the process left.
func (c *cut) death() {
	t := c.t
	t.Helper()
	for _, how := range []string{"resume", "boot"} {
		root, ram := filepath.Join(c.dir, how), filepath.Join(c.dir, how+"-ram")
		must(t, os.CopyFS(root, os.DirFS(filepath.Join(c.dir, "disk"))))
		must(t, os.MkdirAll(ram, 0o700))
		if _, err := os.Stat(filepath.Join(c.dir, "ram")); err == nil {
			must(t, os.CopyFS(ram, os.DirFS(filepath.Join(c.dir, "ram"))))
		}
		sameImages(t, c.at(root, ram, "boot-1"))
		s, err := OpenStandby(t.Context(), c.at(root, ram, "boot-1"))
		if err != nil {
			t.Errorf("%s, process died: %v", c.what, err)
			return
		}
		if how == "resume" {
			err = c.resumed(s)
		} else if err = s.TakeOverDisks(t.Context(), 9); err == nil {
			err = c.booted(s, nothingAcknowledgedLost)
		}
		if err = errors.Join(err, s.Close()); err != nil {
			t.Errorf("%s, process died, %s: %v", c.what, how, err)
		}
	}
}

// resumed takes a replica over and looks at what it gives.
func (c *cut) resumed(s *Standby) error {
	from, err := s.TakeOver(c.t.Context(), 19)
	switch {
	case c.voided || c.voiding && errors.Is(err, replica.ErrVoid):
		if !errors.Is(err, replica.ErrVoid) {
			return fmt.Errorf("a void checkpoint is given: %v", err)
		}
		return nil
	case c.acked == 0 && errors.Is(err, replica.ErrNoCheckpoint):
		return nil
	case c.activating && errors.Is(err, replica.ErrMemoryAbsent): // it may run already
		return c.ledger.follow(s.config.Disks, atMark(c.acked))
	case err != nil:
		return err
	case from.Sequence != c.acked && from.Sequence != c.tried:
		return fmt.Errorf("checkpoint %d, acknowledged was %d", from.Sequence, c.acked)
	}
	ram, err := os.ReadFile(from.RAMPath)
	if err != nil {
		return err
	}
	if _, err := s.Activate(c.t.Context()); err != nil { // rolls the disks back
		return err
	}
	if !bytes.Equal(ram, c.instants[from.Sequence]) || string(from.Blob) != fmt.Sprintf("devices %d", from.Sequence) {
		return fmt.Errorf("memory or devices are not those of checkpoint %d", from.Sequence)
	}
	return c.ledger.follow(s.config.Disks, atMark(from.Sequence))
}

// power opens what a power cut left.
func (c *cut) power(seed uint64) {
	t := c.t
	t.Helper()
	root := filepath.Join(c.dir, fmt.Sprintf("power%d", seed))
	c.p.leave(t, seed, root)
	if seed%4 == 3 { // and again, while it is opened and taken over
		root = c.again(root, seed)
	}
	other := root + "-other"
	must(t, os.CopyFS(other, os.DirFS(root)))
	sameImages(t, c.at(root, root+"-ram", "boot-2"))
	s, err := OpenStandby(t.Context(), c.at(root, root+"-ram", "boot-2"))
	if err == nil {
		err = errors.Join(c.afterBoot(s), s.Close())
	}
	if err == nil && !c.taking && seed%3 == 0 {
		err = c.onceMore(other)
	}
	if err != nil {
		t.Errorf("%s, power cut with seed %d: %v\nchanges: %s", c.what, seed, err, strings.Join(c.p.trace[max(len(c.p.trace)-40, 0):], ", "))
	}
	must(t, errors.Join(os.RemoveAll(root), os.RemoveAll(other), os.RemoveAll(other+"-ram"), os.RemoveAll(root+"-ram")))
}

// again cuts the power once more at a change of the recovery.
func (c *cut) again(root string, seed uint64) string {
	p := newPlatter(c.t, root, 1+c.random.IntN(12), seed%8 == 3)
	config := c.at(root, root+"-ram", "boot-2")
	sameImages(c.t, config)
	config.files = p.files()
	if s, err := OpenStandby(c.t.Context(), config); err == nil {
		if c.taking {
			_, _ = s.TakeOver(c.t.Context(), 8)
		}
		if c.hold != 0 {
			_ = s.TakeOverDisks(c.t.Context(), 8)
		}
		_ = s.Close()
	}
	p.cut()
	p.leave(c.t, seed+100, root+"-again")
	return root + "-again"
}

// afterBoot looks at a replica after a boot of its host.
func (c *cut) afterBoot(s *Standby) error {
	status, err := s.Status(c.t.Context())
	switch {
	case err != nil:
		return err
	case status.Complete:
		return errors.New("it says that it can be resumed")
	case status.Floor < c.floor:
		return fmt.Errorf("it takes epoch %d, %d was fenced", status.Floor, c.floor)
	case status.Sequence != c.acked && status.Sequence != c.tried && !(c.voiding && status.Sequence == 0):
		return fmt.Errorf("its record is of checkpoint %d, acknowledged was %d", status.Sequence, c.acked)
	case c.voided && status.Sequence != 0:
		return errors.New("a void checkpoint is there")
	}
	if _, err := s.TakeOver(c.t.Context(), 19); !errors.Is(err, replica.ErrMemoryAbsent) && !errors.Is(err, replica.ErrNoCheckpoint) && !errors.Is(err, replica.ErrVoid) {
		return fmt.Errorf("taken over without its memory: %v", err)
	}
	if err := s.TakeOverDisks(c.t.Context(), 20); err != nil {
		return err
	}
	if c.taken && c.activating {
		return c.ledger.follow(s.config.Disks, atMark(c.acked))
	}
	return c.booted(s, nothingDurableLost)
}

// onceMore makes what a power cut left a replica again.
func (c *cut) onceMore(root string) error {
	config := c.at(root, root+"-ram", "boot-2")
	sameImages(c.t, config)
	config.Epoch = 11
	g := newTeller(c.t, 2, config)
	g.number = 1000
	s, err := OpenStandby(c.t.Context(), config)
	if err != nil {
		return err
	}
	defer s.Close()
	g.s = s
	defer func() { _ = g.disks.Close() }()
	for _, step := range []func() error{g.link, g.fill, g.agent, g.checkpoint, g.checkpoint, func() error { return g.scribble(3) }} {
		if err := step(); err != nil {
			return fmt.Errorf("protect again: %w", err)
		}
	}
	again := &cut{teller: g}
	if err := again.resumed(s); err != nil {
		return fmt.Errorf("protected again and taken over: %w", err)
	}
	return nil
}
