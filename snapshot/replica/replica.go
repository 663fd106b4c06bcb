package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vmctl/snapshot/durable"
	"vmctl/snapshot/memory"

	"golang.org/x/sys/unix"
)

// Disks are the guest's disks on this host, all of them together. Rollback and
// Close may be called again after a crash or a failure and must then succeed.
type Disks interface {
	// WaitMark returns when every disk has reached the mark of a checkpoint.
	WaitMark(ctx context.Context, sequence uint64) error
	// Sync makes data and undo logs durable.
	Sync() error
	// Rollback refuses further writes, makes the undo logs durable, calls ready,
	// and if that succeeds brings every disk back to its state at the mark.
	Rollback(sequence uint64, ready func() error) error
	// Drop forgets how to go back to marks below before.
	Drop(before uint64) error
	// Fold forgets the marks between keep and before, which came to nothing, but
	// not the way back to keep. The newest mark may stay.
	Fold(keep, before uint64) error
	// Close lets go of the images: another program may write them.
	Close() error
}

// DefaultMarkTimeout bounds how long a commit waits for the disks.
const DefaultMarkTimeout = 5 * time.Second

// Config says where a replica lives.
type Config struct {
	Dir         string        // durable directory of this replica; made if missing
	RAMDir      string        // tmpfs directory, may be shared with other guests
	Name        string        // the guest's UUID: prefix of its files in RAMDir
	Disks       Disks         // nil for a guest without disks; the opener closes them, except after TakeOver
	DiskPaths   []string      // images behind Disks, handed on by TakeOver
	MaxRAM      func() int64  // bytes; a checkpoint of a larger guest is refused; nil means no bound
	Room        func() int64  // bytes that may still be taken in RAMDir; nil: it is not known
	MarkTimeout time.Duration // 0 means DefaultMarkTimeout
	BootID      string        // empty: the kernel's
	Log         *slog.Logger  // nil: none
	Files       durable.Files // what the changes of files pass through
	// Noted, if set, is told what people should know; kind is the word for it.
	Noted func(kind, text string)

	before func(change, path string) error // tests: see files
}

// Replica is the peer's copy of one guest. All methods are safe for concurrent
// use. After TakeOver it takes no more checkpoints; open it again for that.
type Replica struct {
	cfg   Config
	files files
	flock *os.File
	floor atomic.Uint64 // raised before the lock is had: frames waiting for it are refused too

	lock   chan struct{} // the commit lock; holds one token
	rec    *record
	seen   Begin  // highest (epoch, sequence) begun
	memory bool   // the RAM file holds rec.Commit
	taken  bool   // TakeOver was done by this process
	rolled bool   // and the disks were rolled back and let go of
	broken error  // a commit ended between its rename and its end: load again
	loads  uint64 // how often load swept the RAM directory

	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	closing   sync.Mutex
	receivers sync.WaitGroup
}

// Open opens the replica of a guest, or makes an empty one, and finishes or
// undoes what a crash left. The context bounds Open only.
func Open(ctx context.Context, cfg Config) (*Replica, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Disks == nil {
		cfg.Disks = noDisks{}
	}
	if cfg.MarkTimeout <= 0 {
		cfg.MarkTimeout = DefaultMarkTimeout
	}
	if !plainName(cfg.Name) {
		return nil, fmt.Errorf("open replica: %q is no name of a guest", cfg.Name)
	}
	if cfg.BootID == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("open replica: read the boot id: %w", err)
		}
		cfg.BootID = strings.TrimSpace(string(id))
	}
	for _, dir := range []string{cfg.Dir, cfg.RAMDir} {
		if err := cfg.Files.MakeDir(dir); err != nil {
			return nil, fmt.Errorf("open replica: %w", err)
		}
	}
	r := &Replica{cfg: cfg, files: files{cfg.before, cfg.Files}, lock: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	flock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open replica of %s: %w", cfg.Name, err)
	}
	r.flock = flock
	if err := errors.Join(ctx.Err(), r.load()); err != nil {
		return nil, errors.Join(fmt.Errorf("open replica of %s: %w", cfg.Name, err), flock.Close())
	}
	r.lock <- struct{}{}
	return r, nil
}

// lockDir keeps a second process out, until this one ends.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w: %w", dir, ErrInUse, err), file.Close())
	}
	return file, nil
}

// load reads the record and makes the RAM image what it says. The caller holds
// the commit lock or is Open.
func (r *Replica) load() error {
	rec, err := readRecord(r.cfg.Dir)
	if err != nil {
		return err
	}
	r.rec, r.memory = rec, false
	r.loads++
	r.raise(rec.Floor)
	var keep []string
	if c := rec.Commit; c != nil {
		r.raise(c.Begin.Epoch)
		if r.memory, err = r.restoreRAM(c); err != nil {
			return err
		}
		if r.memory {
			keep = rec.ramFiles()
		}
	}
	if err := r.rollOn(); err != nil {
		return err
	}
	if err := r.removeFiles(keep...); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	r.broken = nil
	return nil
}

// mend finishes a commit that failed after its rename, as Open would. What
// other streams have staged is swept away by it. The caller holds the lock.
func (r *Replica) mend() error {
	if r.broken == nil {
		return nil
	}
	if err := r.load(); err != nil {
		return fmt.Errorf("finish a commit that failed (%w): %w", r.broken, err)
	}
	return nil
}

// restoreRAM tells whether the RAM of the checkpoint is here, after applying
// the delta that the crash of an earlier run may have left half applied.
func (r *Replica) restoreRAM(c *commit) (bool, error) {
	if c.BootID != r.cfg.BootID {
		r.cfg.Log.Info("host was booted since the last checkpoint: its RAM is gone", "guest", r.cfg.Name, "sequence", c.Begin.Sequence)
		return false, nil
	}
	ram, err := r.files.openRAM(r.ramPath(c.RAM), c.Begin.RAMSize)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, memory.ErrSize) {
		r.cfg.Log.Warn("RAM of the last checkpoint is missing", "guest", r.cfg.Name, "sequence", c.Begin.Sequence, "error", err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer ram.Close()
	if c.Delta == "" {
		return true, nil
	}
	delta, err := os.Open(r.ramPath(c.Delta))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // it is removed once applied
	}
	if err != nil {
		return false, fmt.Errorf("open staged delta: %w", err)
	}
	defer delta.Close()
	if err := checkDelta(delta, c); err != nil {
		r.cfg.Log.Error("staged delta of the last checkpoint is damaged: its RAM is of no use", "guest", r.cfg.Name, "error", err)
		return false, nil
	}
	decoder, err := memory.NewDecoder(c.pages())
	if err != nil {
		return false, err
	}
	defer decoder.Close()
	if err := applyDelta(delta, decoder, ram); err != nil {
		return false, fmt.Errorf("apply the delta of checkpoint %d/%d again: %w", c.Begin.Epoch, c.Begin.Sequence, err)
	}
	return true, r.files.remove(r.ramPath(c.Delta))
}

// removeFiles removes the guest's staged and RAM files except some.
func (r *Replica) removeFiles(keep ...string) error {
	entries, err := os.ReadDir(r.cfg.RAMDir)
	if err != nil {
		return err
	}
	var failed error
	for _, entry := range entries {
		if name := entry.Name(); !slices.Contains(keep, name) && r.isOurs(name) {
			failed = errors.Join(failed, r.files.remove(r.ramPath(name)))
		}
	}
	return failed
}

// fileName names a file in the RAM directory; suffix is "ram", "delta" or "undo".
func (r *Replica) fileName(b Begin, suffix string) string {
	return fmt.Sprintf("%s-%016x-%016x.%s", r.cfg.Name, b.Epoch, b.Sequence, suffix)
}

func (r *Replica) isOurs(name string) bool {
	rest, ok := strings.CutPrefix(name, r.cfg.Name+"-")
	if !ok {
		return false
	}
	stem, suffix, _ := strings.Cut(rest, ".")
	return len(stem) == 33 && stem[16] == '-' && slices.Contains([]string{"ram", "delta", "undo"}, suffix)
}

func (r *Replica) ramPath(name string) string { return filepath.Join(r.cfg.RAMDir, name) }

// raise lifts the floor; it never sinks.
func (r *Replica) raise(epoch uint64) {
	for {
		old := r.floor.Load()
		if epoch <= old || r.floor.CompareAndSwap(old, epoch) {
			return
		}
	}
}

func (r *Replica) acquire(ctx context.Context) error {
	select {
	case <-r.lock:
		if r.ctx.Err() != nil {
			r.release()
			return ErrClosed
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a commit to end: %w", ctx.Err())
	case <-r.ctx.Done():
		return ErrClosed
	}
}

func (r *Replica) release() { r.lock <- struct{}{} }

// Close ends the streams, waits for their receivers, and lets another process
// open the replica. Disks stay open.
func (r *Replica) Close() error {
	r.closing.Lock()
	r.cancel()
	r.closing.Unlock()
	r.receivers.Wait()
	<-r.lock
	defer r.release()
	if r.flock == nil {
		return nil
	}
	err := r.flock.Close()
	r.flock = nil
	return err
}
