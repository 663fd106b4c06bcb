package testguest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"vmctl/packaging/testguest/work"
)

// patience is how long a guest under emulation may take for anything, on a
// machine that is busy with other things.
const patience = 90 * time.Second

// machine is a guest under plain QEMU with user networking: nothing of the
// product is in between.
type machine struct {
	t       *testing.T
	dir     string
	image   Image
	disks   []string
	append  string       // to the kernel's command line
	more    []string     // arguments of QEMU
	records *net.UDPConn // what the guest sends at every step
	qemu    *exec.Cmd
	exited  chan error
	events  *json.Decoder
	monitor net.Conn
	http    string
	echo    string
}

// newMachine builds the guest and makes its disks, the first from the base.
func newMachine(t *testing.T, disks int) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), append: "guest.rate=10 guest.dirty=500K"}
	var err error
	if m.image, err = Build(t.Context(), cache(t)); err != nil {
		t.Fatal(err)
	}
	for i := range disks {
		disk := filepath.Join(m.dir, fmt.Sprintf("disk%d", i))
		m.disks = append(m.disks, disk)
		if i == 0 {
			err = run(t.Context(), "", nil, "cp", "--sparse=always", m.image.DiskBase, disk)
		} else if err = os.WriteFile(disk, nil, 0o644); err == nil {
			err = os.Truncate(disk, work.LogSize)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if m.records, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.records.Close() })
	return m
}

// cache is where `make guest` keeps the guest.
func cache(t *testing.T) string {
	t.Helper()
	out, err := output(t.Context(), "", nil, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(string(bytes.TrimSpace(out)), ".cache", "guest")
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// boot starts the guest and waits until it answers.
func (m *machine) boot() work.Status {
	m.t.Helper()
	socket := filepath.Join(m.dir, "qmp")
	web, echo := freePort(m.t), freePort(m.t)
	m.http, m.echo = fmt.Sprintf("http://127.0.0.1:%d", web), fmt.Sprintf("127.0.0.1:%d", echo)
	args := []string{
		"-nodefaults", "-no-user-config", "-vga", "none", "-display", "none",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-m", "128M",
		"-kernel", m.image.Kernel, "-initrd", m.image.Initrd,
		"-append", fmt.Sprintf(KernelWords+" guest.ip=10.0.2.15/24 guest.gw=10.0.2.2 guest.record=10.0.2.2:%d %s", m.records.LocalAddr().(*net.UDPAddr).Port, m.append),
		"-serial", "file:" + m.serial(), "-qmp", "unix:" + socket + ",server=on,wait=off",
		"-device", "pvpanic-pci", "-action", "panic=pause",
		"-netdev", fmt.Sprintf("user,id=n0,hostfwd=tcp:127.0.0.1:%d-:80,hostfwd=udp:127.0.0.1:%d-:7", web, echo),
		"-device", "virtio-net-pci,netdev=n0,romfile=",
	}
	for _, disk := range m.disks {
		args = append(args, "-drive", "if=virtio,format=raw,file="+disk)
	}
	m.qemu = exec.Command("qemu-system-x86_64", append(args, m.more...)...)
	said := &bytes.Buffer{}
	m.qemu.Stderr = said
	if err := m.qemu.Start(); err != nil {
		m.t.Fatal(err)
	}
	exited, qemu := make(chan error, 1), m.qemu
	m.exited = exited
	go func() { exited <- qemu.Wait() }()
	m.t.Cleanup(func() {
		_ = qemu.Process.Kill()
		<-exited
		if m.t.Failed() {
			console, _ := os.ReadFile(m.serial())
			m.t.Logf("QEMU: %s\nconsole: %s", said, console)
		}
	})
	m.connect(socket)
	var status work.Status
	m.await("the guest answers", func() (err error) { status, err = m.ask(); return err })
	return status
}

func (m *machine) serial() string { return filepath.Join(m.dir, "serial") }

func (m *machine) connect(socket string) {
	m.t.Helper()
	m.await("the monitor", func() (err error) { m.monitor, err = net.Dial("unix", socket); return err })
	m.t.Cleanup(func() { m.monitor.Close() })
	m.events = json.NewDecoder(m.monitor)
	m.command("qmp_capabilities")
}

func (m *machine) command(name string) {
	m.t.Helper()
	if _, err := fmt.Fprintf(m.monitor, "{\"execute\": %q}\n", name); err != nil {
		m.t.Fatal(err)
	}
}

// stop stops the guest and waits for the answer. QEMU tells the event first, and then
// waits for the writes that are under way: they would land on what is put there.
func (m *machine) stop() {
	m.t.Helper()
	if _, err := fmt.Fprintln(m.monitor, `{"execute": "stop", "id": "stop"}`); err != nil {
		m.t.Fatal(err)
	}
	_ = m.monitor.SetReadDeadline(time.Now().Add(patience))
	for {
		var message struct {
			ID    string          `json:"id"`
			Error json.RawMessage `json:"error"`
		}
		if err := m.events.Decode(&message); err != nil || message.Error != nil {
			m.t.Fatalf("stop the guest: %v %s", err, message.Error)
		}
		if message.ID == "stop" {
			return
		}
	}
}

// event waits for an event of QEMU.
func (m *machine) event(name string) {
	m.t.Helper()
	_ = m.monitor.SetReadDeadline(time.Now().Add(patience))
	for {
		var message struct {
			Event string          `json:"event"`
			Error json.RawMessage `json:"error"`
		}
		if err := m.events.Decode(&message); err != nil || message.Error != nil {
			m.t.Fatalf("wait for %s: %v %s", name, err, message.Error)
		}
		if message.Event == name {
			return
		}
	}
}

func (m *machine) ask() (status work.Status, err error) {
	data, err := m.get("/")
	if err == nil {
		err = json.Unmarshal(data, &status)
	}
	return status, err
}

func (m *machine) get(path string) ([]byte, error) {
	// The forwarded port takes connections before the guest does: try again soon.
	client := http.Client{Timeout: 500 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(m.http + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// await tries until it succeeds. The guest is real and has its own time.
func (m *machine) await(what string, try func() error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case ended := <-m.exited:
			m.exited <- ended
			m.t.Fatalf("%s: QEMU ended (%v): %v", what, ended, err)
		case <-ctx.Done():
			m.t.Fatalf("%s: not in %v: %v", what, patience, err)
		}
	}
}

// reach waits until the guest has counted to n, well.
func (m *machine) reach(n uint64) (status work.Status) {
	m.t.Helper()
	m.await(fmt.Sprintf("counter %d", n), func() (err error) {
		if status, err = m.ask(); err == nil && status.Counter < n {
			err = fmt.Errorf("counter %d", status.Counter)
		}
		return err
	})
	if status.Broken {
		m.t.Fatalf("the guest is broken: %s", status.Reason)
	}
	return status
}

// ended waits for QEMU's end.
func (m *machine) ended() {
	m.t.Helper()
	select {
	case err := <-m.exited:
		m.exited <- err
		if err != nil {
			m.t.Fatalf("QEMU: %v", err)
		}
	case <-time.After(patience):
		m.t.Fatal("QEMU does not end")
	}
}
