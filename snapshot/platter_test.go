package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"vmctl/snapshot/durable"
)

// errDead is what everything gets after the end of the world.
var errDead = errors.New("the process has died")

// platter is the disk under a directory. It sees every change before it is made
// and keeps apart what a sync has made durable: what a power cut leaves of the
// rest is anything. Names in one directory change in their order, as a journal
// has it; there is no order between directories, between names and content, nor
// within content: any 512 bytes of it may be there or not.
//
// It can end the world at the change with number at: that one and every later
// one is refused (a torn write is half made).
type platter struct {
	root string // outside of it is tmpfs: changes there only count
	slow func() // nil, or a disk that takes its time

	mu    sync.Mutex
	at    int
	torn  bool
	n     int
	dead  bool
	trace []string
	dirs  map[string]*directory
	open  map[*durable.File]*inode
}

type inode struct {
	dir     bool
	durable []byte
	pending []durable.Change
}

// directory is the names in one directory: the durable ones, and changes since.
type directory struct {
	names   map[string]*inode
	pending []map[string]*inode // nil: removed
}

func (d *directory) after(changes int) map[string]*inode {
	names := maps.Clone(d.names)
	for _, change := range d.pending[:changes] {
		for name, node := range change {
			if node == nil {
				delete(names, name)
			} else {
				names[name] = node
			}
		}
	}
	return names
}

// newPlatter takes what is under root as durable.
func newPlatter(t testing.TB, root string, at int, torn bool) *platter {
	t.Helper()
	p := &platter{root: root, at: at, torn: torn, dirs: map[string]*directory{}, open: map[*durable.File]*inode{}}
	must(t, filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		node := &inode{dir: entry.IsDir()}
		if node.dir {
			p.dirs[path] = &directory{names: map[string]*inode{}}
		} else if node.durable, err = os.ReadFile(path); err != nil {
			return err
		}
		if path != root {
			p.dirs[filepath.Dir(path)].names[entry.Name()] = node
		}
		return nil
	}))
	return p
}

func (p *platter) files() durable.Files { return durable.Files{Watch: p.watch} }

func (p *platter) watch(c durable.Change) error {
	if p.slow != nil {
		p.slow()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errDead
	}
	p.n++
	p.trace = append(p.trace, string(c.Kind)+" "+filepath.Base(c.Path))
	if p.n != p.at {
		p.note(c)
		return nil
	}
	p.dead = true
	if p.torn && c.Kind == durable.Write {
		c.Data = c.Data[:durable.Half(c.Data)]
		p.note(c)
		return fmt.Errorf("%w (%w)", errDead, durable.ErrTorn)
	}
	return errDead
}

// cut ends the world between two changes.
func (p *platter) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// note takes a change in; p.mu is held.
func (p *platter) note(c durable.Change) {
	if !strings.HasPrefix(c.Path, p.root+"/") && c.Path != p.root {
		return
	}
	in := p.dirs[filepath.Dir(c.Path)]
	name := filepath.Base(c.Path)
	switch c.Kind {
	case durable.Create:
		node := &inode{}
		p.open[c.File] = node
		in.pending = append(in.pending, map[string]*inode{name: node})
	case durable.Mkdir:
		in.pending = append(in.pending, map[string]*inode{name: {dir: true}})
		p.dirs[c.Path] = &directory{names: map[string]*inode{}}
	case durable.Rename: // within one directory
		in.pending = append(in.pending, map[string]*inode{name: nil, filepath.Base(c.To): in.after(len(in.pending))[name]})
	case durable.Remove:
		in.pending = append(in.pending, map[string]*inode{name: nil})
	case durable.SyncDir:
		d := p.dirs[c.Path]
		d.names, d.pending = d.after(len(d.pending)), nil
	default:
		node := p.open[c.File]
		if node == nil { // seen for the first time: it has the name it was opened by
			node = in.after(len(in.pending))[name]
			p.open[c.File] = node
		}
		if c.Kind == durable.Sync {
			for _, change := range node.pending {
				node.durable = applyTo(node.durable, change)
			}
			node.pending = nil
			return
		}
		c.Data = bytes.Clone(c.Data)
		node.pending = append(node.pending, c)
	}
}

// applyTo is what a change makes of a content.
func applyTo(content []byte, c durable.Change) []byte {
	resize := func(length int64) {
		if missing := length - int64(len(content)); missing > 0 {
			content = append(content, make([]byte, missing)...)
		}
	}
	switch c.Kind {
	case durable.Write:
		resize(c.Offset + int64(len(c.Data)))
		copy(content[c.Offset:], c.Data)
	case durable.Punch: // keeps the length
		clear(content[min(c.Offset, int64(len(content))):min(c.Offset+c.Length, int64(len(content)))])
	case durable.Truncate:
		resize(c.Offset)
		content = content[:c.Offset]
	}
	return content
}

// leave puts what one power cut leaves into a new directory. Seed 0 loses all
// that was not synced, seed 1 nothing, the others anything.
func (p *platter) leave(t testing.TB, seed uint64, into string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	random := rand.New(rand.NewPCG(seed, 11))
	p.leaveDir(t, seed, random, p.root, into)
}

func (p *platter) leaveDir(t testing.TB, seed uint64, random *rand.Rand, dir, into string) {
	t.Helper()
	must(t, os.MkdirAll(into, 0o700))
	d := p.dirs[dir]
	keep := len(d.pending)
	if seed == 0 {
		keep = 0
	} else if seed > 1 {
		keep = random.IntN(keep + 1)
	}
	names := d.after(keep)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		node := names[name]
		if node.dir {
			p.leaveDir(t, seed, random, filepath.Join(dir, name), filepath.Join(into, name))
			continue
		}
		must(t, os.WriteFile(filepath.Join(into, name), node.leave(seed, random), 0o600))
	}
}

// leave is what may be left of a content.
func (node *inode) leave(seed uint64, random *rand.Rand) []byte {
	content := bytes.Clone(node.durable)
	if seed == 0 {
		return content
	}
	chance := random.IntN(101) // some cuts lose much of a file, some little
	for _, change := range node.pending {
		if seed == 1 {
			content = applyTo(content, change)
			continue
		}
		if change.Kind != durable.Write {
			if random.IntN(100) < chance {
				content = applyTo(content, change)
			}
			continue
		}
		for from := 0; from < len(change.Data); {
			to := min(len(change.Data), from+512-int(change.Offset+int64(from))%512)
			if random.IntN(100) < chance {
				content = applyTo(content, durable.Change{Kind: durable.Write, Offset: change.Offset + int64(from), Data: change.Data[from:to]})
			}
			from = to
		}
	}
	return content
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
