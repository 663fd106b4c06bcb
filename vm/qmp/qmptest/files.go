package qmptest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"vmctl/vm/qmp"
)

// The files of a Machine, with the ways of QEMU 7.2.

func (m *Machine) addFD(call *Call) (any, error) {
	var args struct {
		Opaque string `json:"opaque"`
	}
	if err := call.Decode(&args); err != nil {
		return nil, err
	}
	f := call.TakeFile()
	if f == nil {
		return nil, refuse("No file descriptor supplied via SCM_RIGHTS")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	id := int64(0)
	for m.sets[id] != nil {
		id++
	}
	m.sets[id] = &fdset{file: f, opaque: args.Opaque}
	return map[string]int64{"fdset-id": id, "fd": int64(f.Fd())}, nil
}

func (m *Machine) removeFD(call *Call) (any, error) {
	var args struct {
		Set int64 `json:"fdset-id"`
	}
	if err := call.Decode(&args); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.sets[args.Set]
	if set == nil {
		return nil, refuse("File descriptor named 'fdset-id:%d' not found", args.Set)
	}
	set.removed = true
	if m.state == qmp.StateRunning {
		_ = set.file.Close()
		delete(m.sets, args.Set)
	}
	return nil, nil
}

func (m *Machine) queryFDSets(*Call) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []any{}
	for id, set := range m.sets {
		fd := map[string]any{"fd": set.file.Fd()}
		if set.opaque != "" {
			fd["opaque"] = set.opaque
		}
		list = append(list, map[string]any{"fdset-id": id, "fds": []any{fd}})
	}
	return list, nil
}

func (m *Machine) getFD(call *Call) (any, error) {
	name, err := fdName(call)
	if err != nil {
		return nil, err
	}
	f := call.TakeFile()
	if f == nil {
		return nil, refuse("No file descriptor supplied via SCM_RIGHTS")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.named[name]; old != nil {
		_ = old.Close()
	}
	m.named[name] = f
	return nil, nil
}

func (m *Machine) closeFD(call *Call) (any, error) {
	name, err := fdName(call)
	if err != nil {
		return nil, err
	}
	f := m.takeNamed(name)
	if f == nil {
		return nil, refuse("File descriptor named '%s' not found", name)
	}
	return nil, f.Close()
}

func fdName(call *Call) (string, error) {
	var args struct {
		Name string `json:"fdname"`
	}
	err := call.Decode(&args)
	return args.Name, err
}

func (m *Machine) takeNamed(name string) *os.File {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.named[name]
	delete(m.named, name)
	return f
}

// save truncates the file and writes on at its offset.
func (m *Machine) save(call *Call) (any, error) {
	args := struct {
		Filename string `json:"filename"`
		Live     bool   `json:"live"`
	}{Live: true}
	if err := call.Decode(&args); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if args.Live && m.state != qmp.StateRunning {
		return nil, refuse("this would have given up the disks: live must be false")
	}
	var id int64
	_, err := fmt.Sscanf(args.Filename, "/dev/fdset/%d", &id)
	set := m.sets[id]
	if err != nil || set == nil || set.removed {
		return nil, refuse("Unable to open %s: No such file or directory", args.Filename)
	}
	if !writable(set.file) {
		return nil, refuse("Unable to open %s: Permission denied", args.Filename)
	}
	if err := set.file.Truncate(0); err != nil {
		return nil, refuse("Unable to open %s: Invalid argument", args.Filename)
	}
	_, err = set.file.Write(m.state0)
	return nil, err
}

// load reads a device state from a named file to its end, in the background as
// QEMU does. A state that is none ends the machine, as it ends QEMU 7.2.
func (m *Machine) load(call *Call) (any, error) {
	var args struct {
		URI string `json:"uri"`
	}
	if err := call.Decode(&args); err != nil {
		return nil, err
	}
	if m.RunState() != qmp.StateInMigrate {
		return nil, refuse("'-incoming' was not specified on the command line")
	}
	f := m.takeNamed(strings.TrimPrefix(args.URI, "fd:"))
	if f == nil {
		return nil, refuse("File descriptor named '%s' not found", args.URI)
	}
	m.running.Go(func() {
		state, err := io.ReadAll(f)
		_ = f.Close()
		if err != nil || len(state) < 9 || !bytes.HasPrefix(state, State(8)) {
			m.kill()
			return
		}
		m.SetState(state)
		m.SetRunState(qmp.StatePaused)
	})
	return nil, nil
}
