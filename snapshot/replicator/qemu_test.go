package replicator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/nbd"
	"vmctl/snapshot/undo"
)

const qemuDisk = 32 << 20

// machine is a QEMU that never runs its guest; its disk is written through the
// monitor, as the guest's device would.
type machine struct {
	t     *testing.T
	dir   string
	image string
	conn  net.Conn
	in    *json.Decoder
}

func startQemu(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, dir: dir, image: filepath.Join(dir, "disk.raw")}
	must(t, os.WriteFile(m.image, bytes.Repeat([]byte("content before "), 100_000), 0o600))
	must(t, os.Truncate(m.image, qemuDisk))
	socket := filepath.Join(dir, "qmp")
	qemu := exec.Command("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
		"-accel", "tcg", "-machine", "q35", "-m", "32M", "-S", "-qmp", "unix:"+socket+",server=on,wait=off",
		"-blockdev", "driver=file,node-name=f0,discard=unmap,filename="+m.image,
		"-blockdev", "driver=raw,node-name=d0,file=f0,discard=unmap", "-blockdev", "driver=raw,node-name=top0,file=d0,discard=unmap",
		"-device", "virtio-blk-pci,drive=top0,id=vd0")
	qemu.Stderr = os.Stderr
	must(t, qemu.Start())
	t.Cleanup(func() {
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
	})
	eventually(t, "qmp socket", func() bool {
		conn, err := net.Dial("unix", socket)
		m.conn = conn
		return err == nil
	})
	t.Cleanup(func() { m.conn.Close() })
	m.in = json.NewDecoder(m.conn)
	m.qmp("qmp_capabilities", "")
	return m
}

// qmp runs a command and returns its result.
func (m *machine) qmp(command, args string) string {
	m.t.Helper()
	if args == "" {
		args = "{}"
	}
	_ = m.conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, err := fmt.Fprintf(m.conn, `{"execute":%q,"arguments":%s}`+"\n", command, args)
	must(m.t, err)
	for {
		var reply map[string]json.RawMessage
		must(m.t, m.in.Decode(&reply))
		if e := reply["error"]; e != nil {
			m.t.Fatalf("%s %s: %s", command, args, e)
		}
		if r := reply["return"]; r != nil {
			return string(r)
		}
	}
}

func (m *machine) io(command string) {
	m.t.Helper()
	out := m.qmp("human-monitor-command", fmt.Sprintf(`{"command-line":%q}`, `qemu-io -d /machine/peripheral/vd0/virtio-backend "`+command+`"`))
	if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		m.t.Fatalf("%s: %s", command, out)
	}
}

// protect attaches the mirror, then exports the disk for the compare.
func (m *machine) protect(socket string) {
	m.t.Helper()
	m.qmp("blockdev-add", fmt.Sprintf(`{"driver":"nbd","node-name":"t0","server":{"type":"unix","path":%q},"export":"d0","reconnect-delay":10,"discard":"unmap"}`, socket))
	m.qmp("blockdev-mirror", `{"job-id":"m0","device":"top0","target":"t0","sync":"none","copy-mode":"write-blocking","on-target-error":"stop"}`)
	m.qmp("nbd-server-start", fmt.Sprintf(`{"addr":{"type":"unix","data":{"path":%q}}}`, m.export()))
	m.qmp("block-export-add", `{"type":"nbd","id":"ex0","node-name":"d0","name":"d0","writable":false}`)
}

func (m *machine) export() string { return filepath.Join(m.dir, "exp") }

// scribble writes at random through the guest's device.
func (m *machine) scribble(random *rand.Rand, times int) {
	m.t.Helper()
	for range times {
		length := (1 + random.IntN(400)) * 512
		off := random.IntN((qemuDisk-length)/512) * 512
		verb := fmt.Sprintf("write -P %d", 1+random.IntN(255))
		switch random.IntN(8) {
		case 0:
			verb = "write -z -u"
		case 1:
			verb = "discard"
		}
		m.io(fmt.Sprintf("%s %d %d", verb, off, length))
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// silence is how long a write waits for a peer that is silent: what takes less time
// did not wait for one.
const silence = time.Second

// protected is a machine with both sides of its replication.
type protected struct {
	*machine
	owner    *Replicator
	receiver *Receiver
	replica  *undo.Disk
	socket   string
	allow    atomic.Bool // Degrade succeeds
	degraded atomic.Int32
}

func startProtected(t *testing.T) *protected {
	t.Helper()
	p := &protected{machine: startQemu(t), socket: filepath.Join(t.TempDir(), "repl")}
	var err error
	p.replica, err = undo.Open(filepath.Join(t.TempDir(), "replica"), qemuDisk)
	must(t, err)
	t.Cleanup(func() { p.replica.Close() })
	p.receiver = NewReceiver(ReceiverOptions{Guest: "g", Disks: map[string]*undo.Disk{"d0": p.replica}}, quiet())
	p.allow.Store(true)
	p.serve()
	p.protect(p.socket)
	return p
}

// serve starts the owner's side, as the agent does; its return ends it.
func (p *protected) serve() (stop func()) {
	p.t.Helper()
	var err error
	p.owner, err = New(Options{
		Guest: "g", AckDeadline: silence,
		Disks: []Disk{{Name: "d0", Size: qemuDisk, Socket: p.socket, Source: func(ctx context.Context) (Source, error) {
			return nbd.Dial(ctx, p.export(), "d0")
		}}},
		InSync: func(context.Context) error { return nil },
		Degrade: func(context.Context) error {
			if !p.allow.Load() {
				return fmt.Errorf("witness is away")
			}
			p.degraded.Add(1)
			return nil
		},
	}, quiet())
	must(p.t, err)
	listeners, err := p.owner.Listen()
	must(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.owner.Serve(ctx, listeners) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			p.t.Errorf("Serve: %v", err)
		}
	}
	p.t.Cleanup(stop)
	return stop
}

// attach connects both sides over a real socket.
func (p *protected) attach() *connection {
	p.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(p.t, err)
	defer listener.Close()
	a, err := net.Dial("tcp", listener.Addr().String())
	must(p.t, err)
	b, err := listener.Accept()
	must(p.t, err)
	c := &connection{owner: wire.NewConn(a, wire.Options{}), peer: &muted{Conn: wire.NewConn(b, wire.Options{})},
		lost: make(chan error, 1), parted: make(chan error, 1)}
	go func() { c.lost <- p.owner.Attach(context.Background(), c.owner, Peer{}) }()
	go func() { c.parted <- p.receiver.Serve(context.Background(), c.peer) }()
	return c
}

func (p *protected) waitInSync() {
	p.t.Helper()
	eventually(p.t, "in sync", func() bool { return p.owner.State().Phase == InSync })
}

// mustBeSame compares the image files of the guest and the replica.
func (p *protected) mustBeSame() {
	p.t.Helper()
	want, err := os.ReadFile(p.image)
	must(p.t, err)
	got := make([]byte, qemuDisk)
	_, err = p.replica.ReadAt(got, 0)
	must(p.t, err)
	if !bytes.Equal(got, want) {
		p.t.Fatal("replica and image differ")
	}
}

func TestQemuLinkCutAndReattached(t *testing.T) {
	p := startProtected(t)
	random := rand.New(rand.NewPCG(1, 1))
	c := p.attach()
	p.scribble(random, 20) // during the first copy
	p.waitInSync()
	p.scribble(random, 40)
	p.waitInSync() // what was discarded is compared
	p.mustBeSame()
	must(t, p.owner.Mark(t.Context(), 1))
	must(t, p.receiver.WaitMark(t.Context(), 1))
	atMark, err := os.ReadFile(p.image)
	must(t, err)
	p.scribble(random, 20)
	c.cut()
	p.scribble(random, 20) // the first of them outdates the replica
	if p.degraded.Load() != 1 || !p.owner.State().Outdated {
		t.Errorf("Degrade succeeded %d times, state %+v", p.degraded.Load(), p.owner.State())
	}
	p.attach()
	p.scribble(random, 30) // during the compare
	p.scribble(random, 10)
	p.waitInSync()
	p.mustBeSame()
	p.receiver.Stop()
	p.scribble(random, 5)
	must(t, p.replica.Rollback(1))
	got := make([]byte, qemuDisk)
	_, err = p.replica.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, atMark) {
		t.Fatal("rolled back over a resync, the replica is not the image at the marker")
	}
}

func TestQemuSilentPeer(t *testing.T) {
	p := startProtected(t)
	c := p.attach()
	p.waitInSync()
	p.allow.Store(false)
	c.peer.silent.Store(true)
	began := time.Now()
	timer := time.AfterFunc(1200*time.Millisecond, func() { p.allow.Store(true) })
	defer timer.Stop()
	p.io("write -P 7 1M 64k")
	if took := time.Since(began); took < 1200*time.Millisecond || took > 4*time.Second {
		t.Errorf("write took %v; Degrade was possible after 1.2 s", took)
	}
	began = time.Now()
	p.io("write -P 8 2M 64k")
	if took := time.Since(began); took >= silence {
		t.Errorf("degraded write took %v", took)
	}
	p.attach()
	p.waitInSync()
	p.mustBeSame()
}

// The agent restarts: QEMU waits for it and sends again what was not answered.
func TestQemuOutlivesTheAgent(t *testing.T) {
	p := startProtected(t)
	p.attach()
	p.waitInSync()
	p.io("write -P 1 0 1M")
	p.owner.close() // writes get no answer any more
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.io("write -P 2 64k 1M")
	}()
	time.Sleep(100 * time.Millisecond)
	os.Remove(p.socket)
	p.serve()
	eventually(t, "mirror connected again", func() bool { p.owner.mu.Lock(); defer p.owner.mu.Unlock(); return p.owner.stalled.count > 0 })
	p.attach()
	<-done
	p.waitInSync()
	p.scribble(rand.New(rand.NewPCG(2, 2)), 20)
	p.waitInSync()
	p.mustBeSame()
	if jobs := p.qmp("query-block-jobs", ""); !strings.Contains(jobs, `"io-status": "ok"`) || !strings.Contains(jobs, `"ready": true`) {
		t.Errorf("mirror job: %s", jobs)
	}
}

// `stop` drains: QEMU then answers no reads of the export until the mirror's
// writes are acknowledged. A compare under way must not be waited for: whoever does
// waits until the peer counts as silent and Degrade is called.
func TestQemuStopsQuicklyDuringTheCompare(t *testing.T) {
	p := startProtected(t)
	p.attach()
	p.waitInSync()
	random := rand.New(rand.NewPCG(3, 3))
	longest, during := time.Duration(0), 0
	for range 40 {
		must(t, p.owner.Recheck())
		p.qmp("cont", "")
		off := random.IntN(qemuDisk - 1<<20)
		p.io(fmt.Sprintf("aio_write -q -P %d %d 64k", 1+random.IntN(255), off/512*512))
		began := time.Now()
		p.qmp("stop", "")
		longest = max(longest, time.Since(began))
		if p.owner.State().Phase == Resync {
			during++
		}
	}
	p.waitInSync()
	p.mustBeSame()
	if during == 0 || longest >= silence || p.degraded.Load() != 0 {
		t.Errorf("longest stop %v, %d of 40 during the compare, Degrade called %d times", longest, during, p.degraded.Load())
	}
}
