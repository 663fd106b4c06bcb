package node_test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"vmctl/node/api"
)

func TestCreateRefused(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	ctx := t.Context()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	disk := file("disk", strings.Repeat("x", 1<<20))
	if _, err := a.Create(ctx, fmt.Appendf(nil, "{name: first, disks: [{path: %s, format: raw}]}", disk)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(disk, link); err != nil {
		t.Fatal(err)
	}
	before := a.files(t)
	for _, test := range []struct {
		spec string
		code api.Code
		say  string
	}{
		{"", api.Usage, "empty"},
		{"hello", api.Usage, ""},
		{"[]", api.Usage, ""},
		{"name: x\n\tcpus: 2", api.Usage, ""},
		{"{}", api.Usage, "name is missing"},
		{"{name: x, cpuz: 2}", api.Usage, `unknown field "cpuz"`},
		{"{name: x, disks: [{sice: 1G}]}", api.Usage, `unknown field "sice"`},
		{"{name: a/b}", api.Usage, `"a/b"`},
		{"{name: ..}", api.Usage, `".."`},
		{"{name: a..b}", api.Usage, `"a..b"`},
		{"{name: A}", api.Usage, `"A"`},
		{"{name: '-x'}", api.Usage, `"-x"`},
		{"{name: \"a\\nb\"}", api.Usage, "name"},
		{"{name: " + strings.Repeat("a", 64) + "}", api.Usage, "63"},
		{"{name: x, uuid: ../../x}", api.Usage, "uuid"},
		{"{name: x, memory: 1P}", api.Usage, "this host has"},
		{"{name: x, memory: 10}", api.Usage, "less than 16M"},
		{"{name: x, memory: -1G}", api.Usage, ""},
		{"{name: x, memory: 1e400G}", api.Usage, ""},
		{"{name: x, cpus: 100000}", api.Usage, "cpus"},
		{"{name: x, cpus: -1}", api.Usage, "cpus"},
		{"{name: x, recovery: {backoff_seconds: 0}}", api.Usage, "recovery backoff_seconds: use more than 0; 5 is the default"},
		{"{name: x, machine: pc}", api.Usage, "machine"},
		{"{name: x, machine: pc-q35-99.9}", "", ""}, // depends on what is known of QEMU
		{"{name: x, cpu: 'max;id'}", api.Usage, "cpu"},
		{"{name: x, accel: turbo}", api.Usage, "accel"},
		{"{name: x, protection: {level: most}}", api.Usage, "protection"},
		{"{name: x, protection: {level: resume, interval_seconds: .nan}}", api.Usage, "interval"},
		{"{name: x, restart: {policy: maybe}}", api.Usage, "restart"},
		{"{name: x, disks: [{}]}", api.Usage, "size"},
		{"{name: x, disks: [{size: 1G, name: ../x}]}", api.Usage, "name"},
		{"{name: x, disks: [{size: 1G, name: d}, {size: 1G, name: d}]}", api.Usage, "twice"},
		{"{name: x, disks: [{image: /none.qcow2}]}", api.Usage, "/none.qcow2"},
		{"{name: x, disks: [{image: none.qcow2}]}", api.Usage, "absolute"},
		{"{name: x, disks: [{image: /dev/zero}]}", api.Usage, "not a file"},
		{"{name: x, disks: [{image: " + dir + "}]}", api.Usage, "not a file"},
		{"{name: x, disks: [{image: " + file("empty", "") + "}]}", api.Usage, "empty"},
		{"{name: x, disks: [{image: " + file("bad", "QFI\xfbnonsense") + "}]}", "", ""},
		{"{name: x, disks: [{path: " + disk + ", format: qcow2}]}", api.Usage, "not in format"},
		{"{name: x, disks: [{path: " + disk + ", format: raw}]}", api.Conflict, "in use"},
		{"{name: x, disks: [{path: " + link + ", format: raw}]}", api.Conflict, "in use"},
		{"{name: x, disks: [{path: " + dir + "/../" + filepath.Base(dir) + "/disk, format: raw}]}", api.Conflict, "in use"},
		{"{name: x, disks: [{size: 10M}, {image: /none}]}", api.Usage, "/none"},
		{"{name: x, kernel: /none}", api.Usage, "/none"},
		{"{name: x, append: quiet}", api.Usage, "kernel"},
		{"{name: x, nics: [{type: bridge}]}", api.Usage, "bridge"},
		{"{name: x, nics: [{bridge: '../x'}]}", api.Usage, "bridge"},
		{"{name: x, nics: [{forward: ['tcp:1:2']}]}", api.Usage, "forward"},
		{"{name: first}", api.Conflict, "first"},
	} {
		v, err := a.Create(ctx, []byte(test.spec))
		if test.code == "" {
			if err == nil { // remove what this host can do after all
				if err := a.Remove(ctx, v.Name, false); err != nil {
					t.Error(err)
				}
			}
		} else {
			want(t, test.spec, err, test.code, test.say)
		}
		if after := a.files(t); len(after) != len(before) {
			t.Fatalf("%s left files: %v", test.spec, after)
		}
	}
	vms, err := a.VMs(ctx)
	if err != nil || len(vms) != 1 {
		t.Errorf("%d guests, %v", len(vms), err)
	}
}

func TestCreateFromJSON(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	v, err := a.Create(t.Context(), []byte(`{"name": "web", "memory": "64M", "disks": [{"size": "10M"}], "protection": {"level": "none"}}`))
	if err != nil || v.Name != "web" || v.State != "stopped" || v.Owner != "a" || v.Epoch != 1 || v.Memory != "64MiB" && v.Memory != "64M" {
		t.Fatalf("%+v, %v", v, err)
	}
	again, err := a.VM(t.Context(), v.UUID)
	if err != nil || again.Name != "web" {
		t.Errorf("by UUID: %+v, %v", again, err)
	}
	a.stop()
	a = run(t, a.config)
	if again, err = a.VM(t.Context(), "web"); err != nil || again.UUID != v.UUID || again.Owner != "a" {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	if err := a.Remove(t.Context(), "web", false); err != nil {
		t.Fatal(err)
	}
	if left := a.files(t); len(left) != 0 {
		t.Errorf("a removed guest leaves %v", left)
	}
	want(t, "a removed guest", of(a.VM(t.Context(), "web")), api.NotFound, "vm ls")
}

func TestOneNameOnBothNodes(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	if _, err := a.Create(ctx, []byte("{name: web, memory: 64M}")); err != nil {
		t.Fatal(err)
	}
	want(t, "the same name here", of(a.Create(ctx, []byte("{name: web}"))), api.Conflict, "on node a")
	want(t, "the same name there", of(b.Create(ctx, []byte("{name: web}"))), api.Conflict, "on node a")
	v, err := b.VM(ctx, "web")
	if err != nil || v.Owner != "a" || v.Node != "a" {
		t.Errorf("seen from the other node: %+v, %v", v, err)
	}
	if _, err := b.Change(ctx, "web", []byte("autostart: true")); err != nil {
		t.Errorf("changed from the other node: %v", err)
	}
	want(t, "started from the other node", of(b.Act(ctx, "web", api.Stop, 0)), api.Conflict, "stopped already")
	if err := b.Remove(ctx, "web", false); err != nil {
		t.Errorf("removed from the other node: %v", err)
	}
	for _, n := range []*agent{a, b} {
		eventually(t, "the guest to be gone from both", func() bool {
			vms, err := n.VMs(ctx)
			return err == nil && len(vms) == 0 && len(n.files(t)) == 0
		})
	}
	if _, err := b.Create(ctx, []byte("{name: web, memory: 64M}")); err != nil {
		t.Errorf("the name of a removed guest: %v", err)
	}
}

// Nodes that did not hear each other may give one name twice. No command then
// takes one guest for the other.
func TestOneNameTwice(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	b.stop()
	eventually(t, "the peer to be missed", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && !cluster.Members[1].Reachable
	})
	ours, err := a.Create(ctx, []byte("{name: web, memory: 64M}"))
	if err != nil {
		t.Fatal(err)
	}
	a.stop()
	b = run(t, b.config)
	theirs, err := b.Create(ctx, []byte("{name: web, memory: 64M}"))
	if err != nil {
		t.Fatal(err)
	}
	a = run(t, a.config)
	for _, n := range []*agent{a, b} {
		eventually(t, "both to know both", func() bool {
			vms, err := n.VMs(ctx)
			return err == nil && len(vms) == 2 && vms[0].Owner != "" && vms[1].Owner != "" && vms[0].State == "stopped" && vms[1].State == "stopped"
		})
		want(t, "a name that two have", of(n.VM(ctx, "web")), api.Conflict, "UUID")
		want(t, "the removal of a name that two have", n.Remove(ctx, "web", false), api.Conflict, ours.UUID)
		if v, err := n.VM(ctx, theirs.UUID); err != nil || v.Owner != "b" {
			t.Errorf("by UUID: %+v, %v", v, err)
		}
	}
	if err := a.Remove(ctx, theirs.UUID, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the name to be one guest's", func() bool {
		v, err := b.VM(ctx, "web")
		return err == nil && v.UUID == ours.UUID
	})
}

// Of many that want one name at once, one gets it, whichever node they ask.
func TestOneNameAtOnce(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	var wait sync.WaitGroup
	made := make(chan error, 8)
	for range cap(made) {
		wait.Go(func() { made <- of(a.Create(t.Context(), []byte("{name: web, memory: 64M}"))) })
	}
	wait.Wait()
	close(made)
	done := 0
	for err := range made {
		if err == nil {
			done++
			continue
		}
		want(t, "a second one", err, api.Conflict, "web")
	}
	if done != 1 {
		t.Errorf("%d guests got the name", done)
	}
}

// TestDiskLargerThanTheFileSystemTakes: a limit of the process stands for that of
// the file system; the kernel answers alike for both.
func TestDiskLargerThanTheFileSystemTakes(t *testing.T) {
	a := startAgent(t, "a")
	before := a.files(t)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 40, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	err := of(a.Create(t.Context(), []byte("{name: x, memory: 64M, disks: [{size: 1G}, {size: 2T, preallocate: true}]}")))
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Error(err)
	}
	want(t, "a disk that no file can be", err, api.Usage, "cannot hold so large a file")
	want(t, "a disk that no file can be", err, api.Usage, "XFS")
	if after := a.files(t); !slices.Equal(before, after) {
		t.Errorf("left are %q", after)
	}
}

func TestConflictsOfAStoppedGuest(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	ctx := t.Context()
	if _, err := a.Create(ctx, []byte("{name: web, memory: 64M, disks: [{size: 10M}]}")); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []api.Verb{api.Stop, api.Kill, api.Reset, api.Pause, api.Unpause} {
		want(t, string(verb)+" of a stopped guest", of(a.Act(ctx, "web", verb, 0)), api.Conflict, "stopped")
		want(t, string(verb)+" of no guest", of(a.Act(ctx, "none", verb, 0)), api.NotFound, `"none"`)
	}
	want(t, "start of no guest", of(a.Act(ctx, "none", api.Start, 0)), api.NotFound, `"none"`)
	want(t, "console of a stopped guest", of(a.Console(ctx, "web")), api.Conflict, "stopped")
	want(t, "logs of a guest that never ran", of(a.Logs(ctx, "web", false)), api.NotFound, "no serial log")
	want(t, "removal of no guest", a.Remove(ctx, "none", true), api.NotFound, `"none"`)
	want(t, "why of no guest", of(a.Why(ctx, "none")), api.NotFound, `"none"`)
	want(t, "promotion of no guest", of(a.Promote(ctx, "none", true)), api.NotFound, `"none"`)
	want(t, "promotion of one's own guest", of(a.Promote(ctx, "web", true)), api.Conflict, "")
	for _, test := range []struct {
		change string
		code   api.Code
		say    string
	}{
		{"name: other", api.Usage, "do not change"},
		{"uuid: 11111111-2222-4333-8444-555555555555", api.Usage, "do not change"},
		{"cpuz: 2", api.Usage, "cpuz"},
		{"cpus: 100000", api.Usage, "cpus"},
		{"memory: 1P", api.Usage, "this host has"},
		{"disks: [{size: 20M}]", api.Usage, "disks"},
		{"disks: []", api.Usage, "disks"},
		{"kernel: /none", api.Usage, "/none"},
		{"[]", api.Usage, ""},
		{"hello", api.Usage, ""},
	} {
		want(t, "change "+test.change, of(a.Change(ctx, "web", []byte(test.change))), test.code, test.say)
	}
	v, err := a.Change(ctx, "web", []byte(`{"memory": "128M", "protection": {"level": "restart"}}`))
	if err != nil || v.Protection.Level != "restart" || !strings.HasPrefix(v.Memory, "128M") {
		t.Errorf("%+v, %v", v, err)
	}
	if err := a.Remove(ctx, "web", true); err != nil {
		t.Error(err)
	}
}
