package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"vmctl/node/wire"
	"vmctl/snapshot/replicator"
)

// holdMarks are the ledger's marks of what a resync has to keep.
const holdMarks = 1 << 40

// resyncSteps are the life of a replica that is whole, and is written to in no order
// that the guest had, with a link lost meanwhile, until it is whole again.
func (g *teller) resyncSteps() []func() error {
	scribble := func(writes int) func() error { return func() error { return g.scribble(writes) } }
	return []func() error{
		g.link, g.fill, g.resync, scribble(2), g.whole, // nothing whole was there to be kept
		g.agent, g.checkpoint, scribble(3),
		g.link, g.resync, scribble(4), g.zeroSome, g.flush, scribble(2),
		g.link, g.resync, scribble(3), g.whole, scribble(2),
		g.checkpoint, scribble(2),
		g.link, g.resync, scribble(4),
	}
}

func init() {
	endings["resync"] = func(*teller) error { return nil } // in the middle
	endings["resync, booted"] = func(g *teller) error {
		g.taking = true
		err := endings["boot"](g)
		g.taken = err == nil
		return err
	}
	endings["resync, resumed"] = endings["resume"]
}

// resync begins one, and waits until that is done.
func (g *teller) resync() error {
	if !g.kept && g.settled {
		g.hold = holdMarks + uint64(len(g.ledger.marks))
		g.ledger.mark(g.hold)
	}
	if err := g.disks.Send(replicator.KindHold, &replicator.Hold{Keep: true}); err != nil {
		return err
	}
	// Zeroes where nothing is: what is after the Hold is answered after it.
	err := g.frame(replicator.KindZero, func(id uint64) any { return &replicator.Zero{Disk: 0, ID: id, Offset: 0, Length: 0} })
	g.kept = err == nil && g.hold != 0
	return err
}

// whole ends it.
func (g *teller) whole() error {
	g.settling = true
	if err := g.disks.Send(replicator.KindWhole, &replicator.Whole{ID: 1}); err != nil {
		return err
	}
	kind, body, err := g.disks.Receive()
	if err == nil && kind != replicator.KindWhole {
		err = fmt.Errorf("the replica says %q", body)
	}
	var m replicator.Whole
	if err = errors.Join(err, wire.Decode(body, &m)); err != nil {
		return err
	}
	g.hold, g.kept, g.settling, g.settled = 0, false, false, true
	g.ledger.promise(0)
	return nil
}

// zeroSome punches a hole over more than one record.
func (g *teller) zeroSome() error { return g.zero(g.ledger.begin("d0", 3, 100, true)) }

// booted looks at disks that were taken over to be booted, under a rule for what was
// written last.
func (c *cut) booted(s *Standby, latest rule) error {
	may := []rule{latest}
	switch {
	case c.hold != 0 && c.activating:
		may = []rule{atMark(c.hold), atMark(c.acked)}
	case c.hold != 0 && c.settling: // the one or the other, and nothing of it lost
		may = []rule{atMark(c.hold), nothingAcknowledgedLost}
	case c.hold != 0 && c.kept:
		may = []rule{atMark(c.hold)}
	case c.hold != 0:
		may = []rule{latest, atMark(c.hold)}
	case c.taking:
		may = []rule{latest, atMark(c.acked)}
	}
	var failed error
	for _, rule := range may {
		err := c.ledger.follow(s.config.Disks, rule)
		if err == nil {
			return nil
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// sameImages lets the identity of a replica that was copied be that of the copies.
func sameImages(t testing.TB, config StandbyConfig) {
	t.Helper()
	path := filepath.Join(config.Dir, "identity")
	raw, err := os.ReadFile(path)
	var record map[string]json.RawMessage
	if err != nil || json.Unmarshal(raw, &record) != nil {
		return // none, or torn
	}
	var inodes []uint64
	for _, d := range config.Disks {
		info, err := os.Stat(d.Path)
		if err != nil {
			return
		}
		inodes = append(inodes, info.Sys().(*syscall.Stat_t).Ino)
	}
	record["images"], err = json.Marshal(inodes)
	must(t, err)
	raw, err = json.Marshal(record)
	must(t, err)
	must(t, os.WriteFile(path, raw, 0o600))
}
