package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"vmctl/snapshot/durable"
	"vmctl/snapshot/replica"
	"vmctl/snapshot/replicator"
	"vmctl/snapshot/undo"
)

// Stream is a connection of one purpose (node/wire.Conn has it).
type Stream = replica.Stream

// DiskImage is one disk of a guest as a replica on this host: always raw.
type DiskImage struct {
	Name string
	Path string
	Size int64 // bytes
	// Was, if not 0, is the size that the image may still have: it is made larger.
	Was int64
}

// StandbyConfig says where a guest's replica lives.
type StandbyConfig struct {
	UUID   string
	Epoch  uint64 // of the owner; earlier ones are refused
	Dir    string // durable directory of the replica's record
	RAMDir string // tmpfs
	Disks  []DiskImage
	MaxRAM func() int64 // bytes, as the guest's spec has it at the time; nil: no bound
	Room   func() int64 // bytes that may still be taken in RAMDir; nil: it is not known
	BootID string       // of this host; empty: the kernel's
	// HoldLimit is how many bytes it may take to keep the disks' content during a
	// resync; 0: a quarter of theirs.
	HoldLimit int64
	Silent    func() time.Time // see replicator.ReceiverOptions
	// Noted, if set, is told what people should know; kind is the word for it.
	Noted func(kind, text string)
	Log   *slog.Logger

	files durable.Files // tests: watched
}

// Standby is the peer's side of one guest: its disks with their undo logs, and
// its replica. Safe for concurrent use.
type Standby struct {
	config   StandbyConfig
	disks    map[string]*undo.Disk
	identity *replicator.Identity
	receiver *replicator.Receiver // nil: the guest has no disks
	replica  *replica.Replica
	folded   bool // since the last commit, by whom the disks are used one at a time
}

// OpenStandby opens a replica or makes an empty one.
func OpenStandby(ctx context.Context, config StandbyConfig) (_ *Standby, err error) {
	s := &Standby{config: config, disks: map[string]*undo.Disk{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeDisks())
		}
	}()
	var paths []string
	fresh := false
	for _, d := range config.Disks {
		if err := config.files.MakeDir(filepath.Dir(d.Path)); err != nil {
			return nil, fmt.Errorf("open the replica: %w", err)
		}
		disk, err := openDisk(config.files, d)
		if err != nil {
			return nil, fmt.Errorf("open the replica's disk %s: %w", d.Name, err)
		}
		s.disks[d.Name] = disk
		fresh = fresh || disk.Fresh()
		paths = append(paths, d.Path)
	}
	rc := replica.Config{Dir: config.Dir, RAMDir: config.RAMDir, Name: config.UUID, MaxRAM: config.MaxRAM, DiskPaths: paths, Log: config.Log, Files: config.files, BootID: config.BootID,
		Room: config.Room, Noted: config.Noted}
	if len(s.disks) > 0 {
		if err := config.files.MakeDir(config.Dir); err != nil {
			return nil, fmt.Errorf("open the replica: %w", err)
		}
		if s.identity, err = replicator.OpenIdentity(config.files, filepath.Join(config.Dir, "identity"), config.BootID, paths); err != nil {
			return nil, err
		}
		if fresh {
			if err := s.identity.Renew(); err != nil {
				return nil, err
			}
		}
		s.receiver = replicator.NewReceiver(replicator.ReceiverOptions{
			Guest: config.UUID, Epoch: config.Epoch, Disks: s.disks, Identity: s.identity, HoldLimit: config.HoldLimit, Silent: config.Silent, Noted: config.Noted,
		}, config.Log)
		if err := s.receiver.Recover(); err != nil {
			return nil, fmt.Errorf("open the replica: %w", err)
		}
		rc.Disks = (*standbyDisks)(s)
	}
	s.replica, err = replica.Open(ctx, rc)
	return s, err
}

// openDisk opens a disk, and makes it larger first if that is due. The content, and
// what is kept of older ones, are what they were: the new part is empty in all.
func openDisk(files durable.Files, d DiskImage) (*undo.Disk, error) {
	if d.Was != 0 {
		if err := undo.Grow(files, d.Path, d.Was, d.Size); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return undo.OpenWith(files, d.Path, d.Size)
}

// ServeDisks applies the owner's disk writes until the stream ends.
func (s *Standby) ServeDisks(ctx context.Context, stream Stream) error {
	if s.receiver == nil {
		stream.Close()
		return errors.New("the guest has no disks")
	}
	return s.receiver.Serve(ctx, stream)
}

// ServeCheckpoints takes the owner's checkpoints until the stream ends.
func (s *Standby) ServeCheckpoints(ctx context.Context, stream Stream) error {
	return s.replica.Receive(ctx, stream)
}

// Says is what the owner has to know before it opens a stream of disk writes. What
// has to be durable before one of them is made so here, where no write waits.
func (s *Standby) Says() (replicator.Peer, error) {
	if _, err := s.identity.Wake(); err != nil {
		return replicator.Peer{}, err
	}
	return replicator.Peer{Replica: s.identity.Value(), Holds: true}, nil
}

// SayWhole keeps, durably, that the disks have what the guest left in them, and when:
// for disks that were its own before, and that no owner has written to yet.
func (s *Standby) SayWhole(of time.Time) error {
	if s.receiver == nil {
		return nil
	}
	if err := s.receiver.Sync(); err != nil {
		return err
	}
	return s.identity.SayWhole(of)
}

// Content is what the replica's disks have; the zero Content for a guest without.
func (s *Standby) Content() replicator.Content {
	if s.receiver == nil {
		return replicator.Content{}
	}
	return s.receiver.Content()
}

// Status is where the replica stands.
func (s *Standby) Status(ctx context.Context) (replica.Status, error) { return s.replica.Status(ctx) }

// TakeOver ends the replica's life as one and returns what to resume; see
// replica.TakeOver. Of the disks nothing is applied any more.
func (s *Standby) TakeOver(ctx context.Context, epoch uint64) (replica.Checkpoint, error) {
	checkpoint, err := s.replica.TakeOver(ctx, epoch)
	if err == nil && s.receiver != nil {
		s.receiver.Stop()
	}
	return checkpoint, err
}

// StepBack leaves the last checkpoint for the one before; see replica.StepBack.
func (s *Standby) StepBack(ctx context.Context) error { return s.replica.StepBack(ctx) }

// Activate is to be called right before the guest runs; see replica.Activate.
func (s *Standby) Activate(ctx context.Context) (string, error) { return s.replica.Activate(ctx) }

// TakeOverDisks fences older owners and lets go of the disks, for a guest that is
// booted and not resumed: as their last write left them, or if that was in the
// middle of a resync, as they were before it, if that is still known.
func (s *Standby) TakeOverDisks(ctx context.Context, epoch uint64) error {
	if err := s.replica.Fence(ctx, epoch); err != nil {
		return err
	}
	if s.receiver != nil {
		s.receiver.Stop()
		of, err := s.receiver.Restore()
		if err != nil {
			return fmt.Errorf("set the disks back to what they were before the resync: %w", err)
		}
		if !of.IsZero() && s.config.Noted != nil {
			s.config.Noted("disks-set-back", fmt.Sprintf("a resync of the disks had not come to its end: they are set back to what they were before it, of %s, "+
				"%s ago; what was written since is not here", of.UTC().Format(time.RFC3339), time.Since(of).Round(time.Second)))
		}
		if err := s.identity.Forget(); err != nil {
			return err
		}
	}
	return s.closeDisks()
}

// Close ends all streams and lets go of the files.
func (s *Standby) Close() error {
	var failed error
	if s.receiver != nil {
		if failed = s.receiver.Close(); errors.Is(failed, undo.ErrClosed) { // taken over
			failed = nil
		}
	}
	return errors.Join(failed, s.replica.Close(), s.closeDisks())
}

func (s *Standby) closeDisks() (err error) {
	for _, disk := range s.disks {
		err = errors.Join(err, disk.Close())
	}
	return err
}

// DiscardUndo removes what an earlier life as a replica left beside an image
// that is about to be a guest's own disk, or a replica from scratch.
func DiscardUndo(path string) error { return undo.Discard(path) }

// standbyDisks is a Standby as replica.Disks.
type standbyDisks Standby

func (s *standbyDisks) WaitMark(ctx context.Context, sequence uint64) error {
	return s.receiver.WaitMark(ctx, sequence)
}

func (s *standbyDisks) Sync() error { return s.receiver.Sync() }

// Rollback refuses the owner's frames first: one that was received and not yet
// applied must not land behind the rollback.
func (s *standbyDisks) Rollback(sequence uint64, ready func() error) error {
	s.receiver.Stop()
	for name, disk := range s.disks {
		if err := disk.SyncLog(); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	if err := ready(); err != nil {
		return err
	}
	// What is held is of another moment: it must not come back over this one, which
	// from here on is reached whatever happens.
	if err := errors.Join(s.receiver.LetGo(), s.identity.Forget()); err != nil {
		return err
	}
	for name, disk := range s.disks {
		if err := disk.Rollback(sequence); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	return nil
}

func (s *standbyDisks) Drop(before uint64) error {
	s.folded = false
	for name, disk := range s.disks {
		if err := disk.Drop(before); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
	}
	return nil
}

// Fold notes the first time that it shortens anything after a commit.
func (s *standbyDisks) Fold(keep, before uint64) error {
	shorter := false
	var used int64
	for name, disk := range s.disks {
		marks := len(disk.Marks())
		if err := disk.Fold(keep, before); err != nil {
			return fmt.Errorf("disk %s: %w", name, err)
		}
		shorter = shorter || len(disk.Marks()) < marks
		used += disk.Used()
	}
	if shorter && !s.folded && s.config.Noted != nil {
		s.config.Noted("undo-folded", fmt.Sprintf("no checkpoint was committed since number %d, though others were begun: "+
			"what the guest has overwritten since is kept with that one, %d MiB now, at most once all of its disks", keep, used>>20))
	}
	s.folded = s.folded || shorter
	return nil
}

func (s *standbyDisks) Close() error { return (*Standby)(s).closeDisks() }
