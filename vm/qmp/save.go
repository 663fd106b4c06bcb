package qmp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotState says that bytes are not a state saved by QEMU.
var ErrNotState = errors.New("not a QEMU device state")

// stateMagic begins every state and migration stream: "QEVM".
const stateMagic = 0x5145564d

// SaveDeviceState saves the device state of a stopped guest into f, a regular
// file or memfd that may be written, whatever its access mode and offset: its
// content is replaced. The state is complete when this returns nil, and only then.
//
// set is what QEMU keeps of it, also after an error unless it is negative. Give it
// to RemoveSavedFD after "cont". For many saves of one guest use a StateFile, which
// has nothing to remove.
//
// After an error that is not QEMU's refusal, QEMU may still write to f later.
func SaveDeviceState(ctx context.Context, c FileExecutor, f *os.File) (set int64, err error) {
	w, err := writeOnly(f)
	if err != nil {
		return -1, fmt.Errorf("qmp: save device state: %w", err)
	}
	defer w.Close()
	set, err = addFD(ctx, c, w)
	if err != nil {
		return -1, err
	}
	return set, save(ctx, c, set)
}

// save writes the state. live must be false: QEMU's default, true, gives up the
// disks of a stopped guest, and aborts when asked a second time.
func save(ctx context.Context, c Executor, set int64) error {
	return c.Execute(ctx, "xen-save-devices-state", struct {
		Filename string `json:"filename"`
		Live     bool   `json:"live"`
	}{fdset(set), false}, nil)
}

// StateFile saves the device state of one guest again and again through one
// memory file, which QEMU keeps open: one command a save, and nothing that could
// leak. It lives as long as the connection. Not for use by several goroutines at
// once.
type StateFile struct {
	c     FileExecutor
	set   int64
	read  *os.File // the memfd
	write *os.File // what QEMU has too: the offset is shared
	// broken: a save was given up, and QEMU may still be writing.
	broken bool
}

// NewStateFile gives QEMU the file.
func NewStateFile(ctx context.Context, c FileExecutor) (*StateFile, error) {
	s := &StateFile{c: c}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *StateFile) open(ctx context.Context) error {
	fd, err := unix.MemfdCreate("device-state", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("qmp: memory file for the device state: %w", err)
	}
	read := os.NewFile(uintptr(fd), "device-state")
	write, err := writeOnly(read)
	if err != nil {
		_ = read.Close()
		return fmt.Errorf("qmp: memory file for the device state: %w", err)
	}
	set, err := addFD(ctx, s.c, write)
	if err != nil {
		_, _ = read.Close(), write.Close()
		return err
	}
	s.read, s.write, s.set = read, write, set
	return nil
}

// Save saves the state of the stopped guest and returns it, in buf's memory if
// that is large enough. After an error that leaves open whether QEMU is still
// writing, the next Save uses a new file.
func (s *StateFile) Save(ctx context.Context, buf []byte) ([]byte, error) {
	if s.broken {
		if err := s.renew(ctx); err != nil {
			return nil, err
		}
	}
	// QEMU truncates, but goes on writing where the last save ended.
	if _, err := s.write.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("qmp: rewind the state file: %w", err)
	}
	if err := save(ctx, s.c, s.set); err != nil {
		var refused *Error
		s.broken = !errors.As(err, &refused) && !errors.Is(err, ErrNotSent)
		return nil, err
	}
	return s.content(buf)
}

func (s *StateFile) content(buf []byte) ([]byte, error) {
	info, err := s.read.Stat()
	if err != nil {
		return nil, fmt.Errorf("qmp: size of the device state: %w", err)
	}
	size := int(info.Size())
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := s.read.ReadAt(buf, 0); err != nil {
		return nil, fmt.Errorf("qmp: read the device state: %w", err)
	}
	if err := checkState(buf); err != nil {
		return nil, fmt.Errorf("qmp: QEMU saved %d bytes: %w", size, err)
	}
	return buf, nil
}

// renew leaves the old file to QEMU. Its removal may not take effect while the
// guest is stopped; that leaks one file per save given up, until RemoveStaleFDs.
func (s *StateFile) renew(ctx context.Context) error {
	read, write, set := s.read, s.write, s.set
	if err := s.open(ctx); err != nil {
		return err
	}
	_, _ = read.Close(), write.Close()
	s.broken = false
	_ = RemoveSavedFD(ctx, s.c, set)
	return nil
}

// Close frees the memory here, and QEMU's side of the file if the guest runs.
func (s *StateFile) Close(ctx context.Context) error {
	err := RemoveSavedFD(ctx, s.c, s.set)
	_, _ = s.read.Close(), s.write.Close()
	if errors.Is(err, ErrClosed) {
		return nil // QEMU's side goes with the connection
	}
	return err
}

func checkState(state []byte) error {
	if len(state) < 8 || binary.BigEndian.Uint32(state) != stateMagic {
		return ErrNotState
	}
	return nil
}
