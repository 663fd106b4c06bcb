package qmptest

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmctl/vm/qmp"
)

//go:embed schema-7.2.json.gz
var schema72 []byte

// Schema72 is the whole query-qmp-schema of QEMU 7.2.
func Schema72() json.RawMessage {
	r, err := gzip.NewReader(bytes.NewReader(schema72))
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(r); err == nil {
			return text
		}
	}
	panic("qmptest: embedded schema: " + err.Error())
}

// Machine is a Server that plays a small guest: run states with their events,
// passed files, saving and loading of a device state. Further commands are added
// with Handle.
type Machine struct {
	*Server

	mu     sync.Mutex
	state  string
	state0 []byte // what a save writes
	sets   map[int64]*fdset
	named  map[string]*os.File
}

type fdset struct {
	file    *os.File
	opaque  string
	removed bool
}

// State is a device state such a machine saves and loads: size bytes, with the
// beginning a real one has.
func State(size int) []byte {
	state := make([]byte, max(size, 8))
	binary.BigEndian.PutUint32(state, 0x5145564d)
	binary.BigEndian.PutUint32(state[4:], 3)
	for i := 8; i < len(state); i++ {
		state[i] = byte(i * 7)
	}
	return state
}

// StartMachine returns a listening machine in the given run state: "prelaunch",
// or "inmigrate" for one that waits for a device state.
func StartMachine(t testing.TB, state string) *Machine {
	t.Helper()
	m := &Machine{
		Server: New(t),
		state:  state,
		state0: State(32489),
		sets:   make(map[int64]*fdset),
		named:  make(map[string]*os.File),
	}
	m.handlers = map[string]Handler{
		"query-status":           m.queryStatus,
		"stop":                   m.stop,
		"cont":                   m.cont,
		"system_reset":           m.reset,
		"system_powerdown":       m.event("POWERDOWN"),
		"quit":                   m.quit,
		"add-fd":                 m.addFD,
		"remove-fd":              m.removeFD,
		"query-fdsets":           m.queryFDSets,
		"getfd":                  m.getFD,
		"closefd":                m.closeFD,
		"xen-save-devices-state": m.save,
		"migrate-incoming":       m.load,
		"yank":                   m.ok,
		"announce-self":          m.ok,
	}
	m.Return("query-version", json.RawMessage(
		`{"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2+dfsg-7+deb12u18"}`))
	m.Return("query-qmp-schema", Schema72())
	m.Return("query-migrate", struct{}{})
	m.Return("query-block-jobs", []any{})
	m.Return("query-jobs", []any{})
	t.Cleanup(m.release)
	m.Listen(t)
	return m
}

// RunState is the present run state, in QEMU's words.
func (m *Machine) RunState() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// SetRunState changes it without an event.
func (m *Machine) SetRunState(state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
}

// SetState sets what the next save writes, and is what was loaded last.
func (m *Machine) SetState(state []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state0 = bytes.Clone(state)
}

// LoadedState is the device state loaded last, or else what a save would write.
func (m *Machine) LoadedState() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.state0)
}

// OpenFiles is the number of passed files the machine holds.
func (m *Machine) OpenFiles() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sets) + len(m.named)
}

func (m *Machine) release() {
	m.Kill()
	for _, s := range m.sets {
		_ = s.file.Close()
	}
	for _, f := range m.named {
		_ = f.Close()
	}
}

func (m *Machine) ok(*Call) (any, error) { return nil, nil }

func (m *Machine) event(name string) Handler {
	return func(call *Call) (any, error) {
		call.Emit(name, nil)
		return nil, nil
	}
}

func (m *Machine) queryStatus(*Call) (any, error) {
	state := m.RunState()
	return map[string]any{"status": state, "running": state == qmp.StateRunning, "singlestep": false}, nil
}

func (m *Machine) stop(call *Call) (any, error) {
	if m.change(qmp.StateRunning, qmp.StatePaused) {
		call.Emit("STOP", nil)
	}
	return nil, nil
}

func (m *Machine) cont(call *Call) (any, error) {
	if m.RunState() == qmp.StateInMigrate {
		return nil, nil // QEMU then starts after the load
	}
	if m.change("", qmp.StateRunning) {
		call.Emit("RESUME", nil)
	}
	return nil, nil
}

// change tells whether the state was from ("" is any other) and is now to.
func (m *Machine) change(from, to string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == to || from != "" && m.state != from {
		return false
	}
	m.state = to
	return true
}

func (m *Machine) reset(call *Call) (any, error) {
	call.Emit("RESET", map[string]any{"guest": false, "reason": "host-qmp-system-reset"})
	return nil, nil
}

func (m *Machine) quit(call *Call) (any, error) {
	call.client.write(mustEncode(map[string]any{"return": struct{}{}, "id": call.ID}))
	call.Emit("SHUTDOWN", map[string]any{"guest": false, "reason": "host-qmp-quit"})
	call.Kill()
	return nil, ErrNoReply
}

// writable tells whether QEMU would take the file for a save.
func writable(f *os.File) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_WRONLY
}

// refuse is an error in QEMU's words.
func refuse(format string, args ...any) error {
	return &qmp.Error{Class: qmp.ClassGeneric, Description: fmt.Sprintf(format, args...)}
}
