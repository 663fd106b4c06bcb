package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// These tests run the generated lines in real QEMU. The guests are the tiny
// programs of testdata/boot, which count.

const patience = 60 * time.Second // the machine may be busy

func realHost(t *testing.T) Host {
	t.Helper()
	h, err := FindHost(AccelTCG)
	if err != nil {
		t.Fatal(err)
	}
	h.CPUs = 4
	return h
}

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testLayout(t *testing.T, uuid string) Layout {
	t.Helper()
	dir := shortDir(t)
	l := NewLayout(dir+"/s", dir+"/r", dir+"/m", uuid)
	for _, dir := range []string{l.Disks(), l.Boot(), l.Runtime, filepath.Dir(l.RAM())} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// process is a QEMU started by a test, without a guard.
type process struct {
	t      *testing.T
	layout Layout
	cmd    *exec.Cmd
	done   chan struct{}
	qmp    *textQMP
}

func launch(t *testing.T, line []string, l Layout) *process {
	t.Helper()
	log, err := os.Create(l.QEMULog())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{t: t, layout: l, cmd: exec.Command(line[0], line[1:]...), done: make(chan struct{})}
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(p.kill)
	p.qmp = p.dial(l.AgentQMP())
	return p
}

func (p *process) said() string {
	text, _ := os.ReadFile(p.layout.QEMULog())
	return string(text)
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

func (p *process) dial(path string) *textQMP {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.done:
			p.t.Fatalf("QEMU ended: %s", p.said())
		default:
		}
		conn, err := net.Dial("unix", path)
		if err == nil {
			q := &textQMP{conn: conn, lines: bufio.NewReader(conn)}
			p.t.Cleanup(func() { conn.Close() })
			if _, err := q.read(); err != nil { // greeting
				p.t.Fatal(err)
			}
			if err := q.Execute(context.Background(), "qmp_capabilities", nil, nil); err != nil {
				p.t.Fatal(err)
			}
			return q
		}
		if time.Now().After(deadline) {
			p.t.Fatal(err)
		}
	}
}

// textQMP is the plainest QMP client: one command at a time, events skipped.
type textQMP struct {
	conn  net.Conn
	lines *bufio.Reader
}

func (q *textQMP) read() (map[string]json.RawMessage, error) {
	line, err := q.lines.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var message map[string]json.RawMessage
	return message, json.Unmarshal(line, &message)
}

func (q *textQMP) Execute(_ context.Context, command string, args, reply any) error {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return err
	}
	for {
		message, err := q.read()
		if err != nil {
			return err
		}
		if text, ok := message["error"]; ok {
			return fmt.Errorf("%s: %s", command, text)
		}
		if result, ok := message["return"]; ok {
			if reply == nil {
				return nil
			}
			return json.Unmarshal(result, reply)
		}
	}
}

func (p *process) execute(command string, args any) {
	p.t.Helper()
	if err := p.qmp.Execute(context.Background(), command, args, nil); err != nil {
		p.t.Fatalf("%v\n%s", err, p.said())
	}
}

func (p *process) state() string {
	p.t.Helper()
	var reply struct{ Status string }
	if err := p.qmp.Execute(context.Background(), "query-status", nil, &reply); err != nil {
		p.t.Fatal(err)
	}
	return reply.Status
}

func (p *process) awaitState(want string) {
	p.t.Helper()
	awaitTrue(p.t, func() error {
		if got := p.state(); got != want {
			return fmt.Errorf("state is %s, want %s: %s", got, want, p.said())
		}
		return nil
	})
}

func awaitTrue(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// lines are the complete lines on the serial console so far.
func serialLines(t *testing.T, l Layout) []string {
	t.Helper()
	data, err := os.ReadFile(l.SerialLog())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	return lines[:len(lines)-1]
}

func lastCount(t *testing.T, l Layout) uint64 {
	lines := serialLines(t, l)
	if len(lines) == 0 || len(lines[len(lines)-1]) != 8 {
		return 0
	}
	n, _ := strconv.ParseUint(lines[len(lines)-1], 16, 32)
	return n
}

func awaitCount(t *testing.T, l Layout, n uint64) {
	t.Helper()
	awaitTrue(t, func() error {
		if got := lastCount(t, l); got < n {
			return fmt.Errorf("the guest counted to %d, want %d: %q", got, n, serialLines(t, l))
		}
		return nil
	})
}

// saveState takes the device state of a stopped guest.
func (p *process) saveState() []byte {
	p.t.Helper()
	path := filepath.Join(p.layout.State, "state")
	p.execute("xen-save-devices-state", map[string]any{"filename": path, "live": false})
	blob, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return blob
}

func (p *process) loadState(blob []byte) {
	p.t.Helper()
	path := filepath.Join(p.layout.Runtime, "in.sock")
	p.execute("migrate-incoming", map[string]any{"uri": "unix:" + path})
	conn, err := net.Dial("unix", path)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.Copy(conn, bytes.NewReader(blob)); err != nil {
		p.t.Fatal(err)
	}
	conn.Close()
	p.awaitState("paused")
}
