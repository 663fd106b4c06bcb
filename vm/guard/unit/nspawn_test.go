package unit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/vm/guard"
)

const (
	nspawnPatience = time.Minute
	nspawnUnit     = `[Unit]
Description=vmctl agent
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/vmctl node run --name host --accel tcg --listen 127.0.0.1:7440 --config /etc/vmctl.yaml
Restart=always
RestartSec=0
TimeoutStopSec=5
[Install]
WantedBy=multi-user.target
`
)

// TestSystemdHost runs the agent as a service of a host with systemd, which is a
// container, and lets it start a guest. The guest must not notice that the agent
// is restarted or killed. It needs root, systemd-nspawn and mmdebstrap, a package
// archive and two minutes, so it runs only with VMCTL_NSPAWN=1. The tree of the
// host is kept at VMCTL_NSPAWN_ROOT, if that is set, for the next run.
func TestSystemdHost(t *testing.T) {
	if os.Getenv("VMCTL_NSPAWN") != "1" {
		t.SkipNow()
	}
	h := bootHost(t)
	h.run("vmctl", "vm", "create", "web", "--memory", "32M", "--kernel", "/root/kernel", "--append", "hello", "--start")
	before := h.guest()
	if !strings.HasPrefix(before.unit, "vmctl-guest-"+before.uuid[:8]) {
		t.Errorf("QEMU and its guard run in %q, not in a unit of their own", before.unit)
	}
	t.Logf("guard %d and QEMU %d in %s", before.guard, before.qemu, before.unit)

	for _, act := range []struct {
		name string
		line []string
	}{
		{"restart", []string{"systemctl", "restart", "vmctl"}},
		{"kill -9", []string{"systemctl", "kill", "--signal=KILL", "vmctl"}},
		{"kill -9 of all in the service", []string{"systemctl", "kill", "--kill-whom=all", "--signal=KILL", "vmctl"}},
		{"stop and start", []string{"sh", "-c", "systemctl stop vmctl; sleep 1; systemctl start vmctl"}},
	} {
		agent, count := h.agent(), h.count(before.uuid)
		started := time.Now()
		h.run(act.line...)
		h.until("a new agent that serves", func() bool {
			out, err := h.try("vmctl", "vm", "show", "web", "--output", "json")
			return h.agent() != agent && err == nil && strings.Contains(out, `"running"`)
		})
		took := time.Since(started)
		if after := h.guest(); after != before {
			t.Fatalf("%s: got %+v, want %+v", act.name, after, before)
		}
		h.until("the guest counts on", func() bool { return h.count(before.uuid) > count })
		t.Logf("%s: agent %d -> %d serves after %v, QEMU %d counts on from %d", act.name, agent, h.agent(), took, before.qemu, count)
	}

	h.run("systemctl", "stop", before.unit)
	h.until("the stopped guest is noticed", func() bool {
		out, err := h.try("vmctl", "vm", "show", "web", "--output", "json")
		return err == nil && strings.Contains(out, `"stopped"`)
	})
	if out := h.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "vmctl-guest-*"); strings.Contains(out, before.unit) {
		t.Errorf("the unit stayed behind:\n%s", out)
	}
	if out := h.run("cat", "/var/lib/vmctl/guests/"+before.uuid+"/exit.json"); !strings.Contains(out, string(guard.ReasonTerminated)) {
		t.Errorf("stopping the unit did not end QEMU by the book:\n%s", out)
	}

	h.witness()

	h.run("vmctl", "vm", "start", "web")
	again := h.guest()
	h.poweroff(again)
}

// witness enrols the host's cluster at a witness that runs as the packages have it:
// a user of its own and hardly any rights, from which it starts a process for each
// bout of handshakes. It is asked again after a restart.
func (h *guestHost) witness() {
	h.Helper()
	h.run("systemctl", "start", "vmctl-witness")
	h.run("vmctl", "cluster", "init", "shop")
	for range 2 {
		token := strings.TrimSpace(h.run("vmctl", "witness", "token"))
		h.Log(h.run("vmctl", "witness", "add", "127.0.0.1:7441", "--token", token))
		h.run("vmctl", "witness", "remove")
		h.run("systemctl", "restart", "vmctl-witness")
	}
	if user := strings.TrimSpace(h.run("sh", "-c", "ps -o user= -p $(systemctl show vmctl-witness -p MainPID --value)")); user == "root" {
		h.Error("the witness runs as root")
	}
	if log := h.run("journalctl", "--no-pager", "-o", "cat", "-u", "vmctl-witness"); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
		h.Errorf("the witness complains:\n%s", log)
	}
}

// guestHost is a container with systemd as its first process.
type guestHost struct {
	*testing.T
	root    string
	nspawn  *exec.Cmd
	ended   chan struct{}
	console bytes.Buffer // read it after ended
	leader  int
}

// identity is what must stay the same.
type identity struct {
	uuid, unit  string
	guard, qemu int
}

func bootHost(t *testing.T) *guestHost {
	t.Helper()
	dir := t.TempDir()
	tree := os.Getenv("VMCTL_NSPAWN_ROOT")
	if tree == "" {
		tree = filepath.Join(dir, "tree")
	}
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	if _, err := os.Stat(tree); err != nil {
		must("mmdebstrap", "--variant=minbase", "--aptopt=APT::Install-Recommends false",
			"--include=systemd,systemd-sysv,dbus,procps,qemu-system-x86,qemu-utils,seabios", "bookworm", tree)
	}
	layer, root := filepath.Join(dir, "layer"), filepath.Join(dir, "root")
	for _, d := range []string{layer, root} {
		must("mkdir", d)
	}
	must("mount", "-t", "tmpfs", "-o", "size=512m", "none", layer)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", layer).Run() })
	must("mkdir", layer+"/upper", layer+"/work")
	must("mount", "-t", "overlay", "-o", "lowerdir="+tree+",upperdir="+layer+"/upper,workdir="+layer+"/work", "overlay", root)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", root).Run() })

	build := exec.Command("go", "build", "-o", root+"/usr/bin/vmctl", "vmctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build vmctl: %v\n%s", err, out)
	}
	must("cp", "../../testdata/boot/kernel.bin", root+"/root/kernel")
	must("cp", "../../../packaging/systemd/vmctl-witness.service", root+"/etc/systemd/system/")
	for path, text := range map[string]string{"/etc/hostname": "host\n", "/etc/vmctl.yaml": "shutdown-timeout: 15s\n",
		"/etc/systemd/system/vmctl.service": nspawnUnit} {
		if err := os.WriteFile(root+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must("mkdir", "-p", root+"/var/log/journal") // kept, to be read when the host has ended
	must("systemctl", "--root="+root, "enable", "vmctl.service")
	return startHost(t, root)
}

func startHost(t *testing.T, root string) *guestHost {
	t.Helper()
	h := &guestHost{T: t, root: root, ended: make(chan struct{})}
	name := fmt.Sprintf("vmctl%d", os.Getpid())
	// Two containers of one cgroup would share what is below it, and systemd
	// cannot kill a service among whose processes are some it cannot see.
	h.nspawn = exec.Command("sh", "-c", `for d in $1; do echo $$ >$d/cgroup.procs; done; shift; exec "$@"`, "sh",
		strings.Join(ownCgroups(t, name), " "),
		"systemd-nspawn", "-q", "--register=no", "--keep-unit", "-D", root, "-M", name, "--boot", "--private-network",
		"--capability=all", "--resolv-conf=off", "--timezone=off", "--console=pipe")
	h.nspawn.Stdout, h.nspawn.Stderr = &h.console, &h.console
	// Plain cgroup v2 as on a host of today, whatever this machine has.
	h.nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	h.nspawn.WaitDelay = time.Second
	if err := h.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = h.nspawn.Wait()
		close(h.ended)
	}()
	t.Cleanup(func() {
		if h.leader != 0 {
			_ = syscall.Kill(h.leader, syscall.SIGKILL) // its first process: the whole host
		}
		_ = h.nspawn.Process.Kill()
		<-h.ended
		if t.Failed() {
			t.Logf("console:\n%s", h.console.String())
		}
	})
	h.until("the host has a first process", func() bool {
		h.leader = firstProcess(h.nspawn.Process.Pid)
		return h.leader != 0
	})
	h.until("the agent is active", func() bool {
		out, _ := h.try("systemctl", "is-active", "vmctl")
		return strings.TrimSpace(out) == "active"
	})
	return h
}

// ownCgroups makes one in each hierarchy that systemd uses.
func ownCgroups(t *testing.T, name string) []string {
	t.Helper()
	var made []string
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		if _, err := os.Stat(top + "/cgroup.procs"); err != nil {
			continue
		}
		own := top + "/" + name
		if err := os.Mkdir(own, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append(made, own)
		t.Cleanup(func() {
			_ = exec.Command("find", own, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
		})
	}
	return made
}

// firstProcess is the child that is number 1 in its own namespace; there are
// others while the container is made.
func firstProcess(nspawn int) int {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn, nspawn))
	for _, pid := range strings.Fields(string(children)) {
		status, _ := os.ReadFile("/proc/" + pid + "/status")
		for line := range strings.Lines(string(status)) {
			if words := strings.Fields(line); len(words) > 2 && words[0] == "NSpid:" && words[len(words)-1] == "1" {
				n, _ := strconv.Atoi(pid)
				return n
			}
		}
	}
	return 0
}

// try runs a command inside the host.
func (h *guestHost) try(line ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(h.leader), "-a"}, line...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *guestHost) run(line ...string) string {
	h.Helper()
	out, err := h.try(line...)
	if err != nil {
		log, _ := h.try("journalctl", "--no-pager", "-n", "40")
		h.Fatalf("%v: %v\n%s\njournal:\n%s", line, err, out, log)
	}
	return out
}

func (h *guestHost) until(what string, done func() bool) {
	h.Helper()
	for end := time.Now().Add(nspawnPatience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("waited in vain: %s", what)
		}
	}
}

func (h *guestHost) agent() int {
	out, _ := h.try("systemctl", "show", "vmctl", "-p", "MainPID", "--value")
	pid, _ := strconv.Atoi(strings.TrimSpace(out))
	return pid
}

// guest asks for the guest, and /proc for what runs it. Units are told by the
// cgroup, not by what the agent says.
func (h *guestHost) guest() identity {
	h.Helper()
	var shown struct {
		UUID string `json:"uuid"`
		PID  int    `json:"pid"`
	}
	if err := json.Unmarshal([]byte(h.run("vmctl", "vm", "show", "web", "--output", "json")), &shown); err != nil {
		h.Fatal(err)
	}
	id := identity{uuid: shown.UUID, qemu: shown.PID}
	for line := range strings.Lines(h.run("cat", fmt.Sprintf("/proc/%d/status", id.qemu))) {
		if pid, ok := strings.CutPrefix(line, "PPid:"); ok {
			id.guard, _ = strconv.Atoi(strings.TrimSpace(pid))
		}
	}
	units := map[string]bool{}
	for _, pid := range []int{id.guard, id.qemu} {
		for line := range strings.Lines(h.run("cat", fmt.Sprintf("/proc/%d/cgroup", pid))) {
			if name := filepath.Base(strings.TrimSpace(line)); strings.HasSuffix(name, ".service") {
				units[name] = true
				id.unit = name
			}
		}
	}
	if len(units) != 1 {
		h.Errorf("guard and QEMU are in %v", units)
	}
	return id
}

// count is the last number the guest wrote.
func (h *guestHost) count(uuid string) int64 {
	words := strings.Fields(h.run("tail", "-n", "2", "/var/lib/vmctl/guests/"+uuid+"/serial.log"))
	if len(words) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(words[0], 16, 64)
	return n
}

// poweroff ends the host in order: the agent, once it has shut its guests down,
// before what is left of their units.
func (h *guestHost) poweroff(id identity) {
	h.Helper()
	began := time.Now()
	h.run("systemctl", "poweroff")
	select {
	case <-h.ended:
	case <-time.After(nspawnPatience):
		h.Fatal("the host does not end")
	}
	h.leader = 0
	h.Logf("the host ended after %v", time.Since(began))
	journal, err := exec.Command("journalctl", "--no-pager", "-o", "cat", "-D", h.root+"/var/log/journal").CombinedOutput()
	if err != nil {
		h.Fatalf("read the journal: %v\n%s", err, journal)
	}
	// The guest was asked by its power button, by the agent: nothing was left for
	// systemd to end.
	last := -1
	for _, word := range []string{"this node is shut down with its host", "web was stopped for the shutdown of this node (guest)", "0 guests handed over, 1 stopped, 0 left", "Stopped vmctl.service"} {
		at := bytes.LastIndex(journal, []byte(word))
		if at <= last {
			h.Errorf("%q is at %d of the journal, what comes before it at %d:\n%s", word, at, last, journal[max(0, len(journal)-6000):])
		}
		last = at
	}
	if bytes.Contains(journal, []byte("vmctl.service: State 'stop-sigterm' timed out")) {
		h.Error("systemd did not give the agent the time it asked for")
	}
	if at := bytes.LastIndex(journal, []byte("Stopping "+id.unit)); at > last {
		h.Error("the guest's unit was left to systemd")
	}
}
