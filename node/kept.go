package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vmctl/node/api"
	"vmctl/snapshot"
	"vmctl/snapshot/replica"
)

// keptPrefix begins the names of the directories that have a former owner's
// disks; goneSuffix ends those of which the removal was begun.
const (
	keptPrefix = "kept-epoch-"
	goneSuffix = ".removed"
)

// keptDisks are a guest's disks as this node wrote them last before another
// took over; they may hold writes that nobody else has.
type keptDisks struct {
	Epoch uint64    `msgpack:"epoch"`
	Path  string    `msgpack:"path"`
	Bytes int64     `msgpack:"bytes"` // that they take
	Since time.Time `msgpack:"since"`
}

// keptPolicy says what may be removed: what is neither among the newest nor
// young. What is removed is named in an event before that.
type keptPolicy struct {
	newest int // below zero: all
	least  time.Duration
}

// Defaults of the policy.
const (
	keptNewest = 2
	keptLeast  = 7 * 24 * time.Hour
)

func (c *Config) keptPolicy() (keptPolicy, error) {
	p := keptPolicy{newest: keptNewest, least: keptLeast}
	if c.KeptFor < 0 {
		return p, fmt.Errorf("kept-for %v: it is below zero", c.KeptFor)
	}
	if c.KeptFor > 0 {
		p.least = c.KeptFor
	}
	switch c.KeptCopies {
	case "":
	case "all":
		p.newest = -1
	default:
		n, err := strconv.ParseUint(c.KeptCopies, 10, 16)
		if err != nil {
			return p, fmt.Errorf("kept-copies %q: it is a number, or all", c.KeptCopies)
		}
		p.newest = int(n)
	}
	return p, nil
}

// removable picks those of list, the newest first, that may go.
func (p keptPolicy) removable(list []keptDisks, now time.Time) (gone []keptDisks) {
	for i, k := range list {
		if p.newest >= 0 && i >= p.newest && now.Sub(k.Since) > p.least {
			gone = append(gone, k)
		}
	}
	return gone
}

// kept lists what is kept here of the guest, the newest epoch first.
func (g *guest) kept() ([]keptDisks, error) {
	entries, err := os.ReadDir(g.layout.State)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for kept disks: %w", err)
	}
	var list []keptDisks
	for _, entry := range entries {
		number, ok := strings.CutPrefix(entry.Name(), keptPrefix)
		epoch, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || !entry.IsDir() {
			continue
		}
		k := keptDisks{Epoch: epoch, Path: filepath.Join(g.layout.State, entry.Name())}
		if err := k.measure(); err != nil {
			return nil, fmt.Errorf("look at kept disks: %w", err)
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b keptDisks) int { return -compareEpochs(a.Epoch, b.Epoch) })
	return list, nil
}

func compareEpochs(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// measure finds since when the disks are kept, which is when the directory got
// its name, and the space that they take.
func (k *keptDisks) measure() error {
	return filepath.WalkDir(k.Path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat syscall.Stat_t
		if err := syscall.Lstat(path, &stat); err != nil {
			return err
		}
		k.Bytes += stat.Blocks * 512
		if path == k.Path {
			k.Since = time.Unix(stat.Ctim.Unix())
		}
		return nil
	})
}

// keptHere is what this node tells the other of kept disks, by guest.
func (n *Node) keptHere() map[string][]keptDisks {
	all := map[string][]keptDisks{}
	for _, g := range n.guests.list() {
		list, err := g.kept()
		if err != nil {
			g.log.Warn("kept disks are not shown", "error", err)
		}
		if len(list) > 0 {
			all[g.id] = list
		}
	}
	return all
}

// keptView is what is kept of a guest on both nodes, as far as is known here.
func (g *guest) keptView() []api.Kept {
	list, err := g.kept()
	if err != nil {
		g.log.Warn("kept disks are not shown", "error", err)
	}
	var view []api.Kept
	add := func(node string, list []keptDisks) {
		for _, k := range list {
			view = append(view, api.Kept{Node: node, Epoch: k.Epoch, Path: k.Path, Bytes: k.Bytes, Since: api.Time{Time: k.Since}})
		}
	}
	add(g.n.config.Name, list)
	add(g.n.neighbour.keptOf(g.id))
	return view
}

// RemoveKept implements api.Machines: an operator has looked at the disks, or
// does without.
func (n *Node) RemoveKept(ctx context.Context, name string, epoch uint64, here bool) error {
	g, err := n.guests.named(name)
	if err != nil {
		return err
	}
	list, err := g.kept()
	if err != nil {
		return err
	}
	for _, k := range list {
		if k.Epoch == epoch {
			defer n.exchange.soon()
			return g.removeKept(k, "by the user")
		}
	}
	_, theirs := n.neighbour.keptOf(g.id)
	there := slices.ContainsFunc(theirs, func(k keptDisks) bool { return k.Epoch == epoch })
	switch {
	case !there || here:
		return api.Errorf(api.NotFound, "remove kept disks of %s: none are of epoch %d", name, epoch).WithHint("`vmctl vm kept %s` lists them.", name)
	case !n.peerHeard():
		return api.Errorf(api.Unreachable, "remove kept disks of %s: they are on the peer, which does not answer", name)
	}
	if err := n.peerClient().RemoveKept(ctx, g.id, epoch, true); err != nil {
		return err
	}
	if err := n.exchange.now(ctx); err != nil { // what is gone is not shown any more
		n.log.Info("records not compared after kept disks were removed", "error", err)
	}
	return nil
}

// makeRoom puts away what is where the replica's disks go: a former owner's
// disks are kept, for they may hold writes that nobody else has. Those that he
// gave away, and the owner has gone on with, become the replica's.
func (g *guest) makeRoom(here placeRecord, request openRequest, given bool) error {
	g.closeStandbyLocked()
	if err := replica.Remove(replica.Config{Dir: g.replicaDir(), RAMDir: g.n.config.RAMDir, Name: g.id}); err != nil {
		return err
	}
	for _, d := range request.Disks {
		if err := snapshot.DiscardUndo(g.replicaDisk(d.Name)); err != nil {
			return err
		}
	}
	if here.Epoch == 0 || given {
		return nil
	}
	kept := filepath.Join(g.layout.State, fmt.Sprintf("%s%d", keptPrefix, here.Epoch))
	if _, err := os.Stat(g.layout.Disks()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.Rename(g.layout.Disks(), kept); err != nil {
		return fmt.Errorf("keep the former owner's disks: %w", err)
	}
	g.n.journal.record(warning, "disks-kept", g.name(), fmt.Sprintf("the disks of %s as this node last wrote them, at epoch %d, are kept in %s; they may hold writes that the new owner never had", g.name(), here.Epoch, kept))
	g.n.exchange.soon() // the peer shows them, too
	return nil
}
