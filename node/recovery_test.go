package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmctl/node/api"
)

func (a *agent) make(t *testing.T, spec string) api.VM {
	t.Helper()
	v, err := a.Create(t.Context(), []byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What the peer could not hold beside its own is refused, unless it is forced.
func TestAdmissionOfWhatThePeerCannotHold(t *testing.T) {
	t.Parallel()
	small := dirs(t, "b")
	small.GuestMemory = "600M"
	a, b := startAgent(t, "a"), run(t, small)
	join(t, a, b)
	ctx := t.Context()
	eventually(t, "a to know what b has", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && cluster.Members[1].MemoryBytes == 600<<20 && cluster.Members[1].Fits != nil && *cluster.Members[1].Fits
	})
	const web = "{name: web, memory: 256M, protection: {level: resume}}" // 641 MiB with QEMU's own
	want(t, "a guest that b cannot hold", of(a.Create(ctx, []byte(web))), api.Unsafe, "b has to hold 641MiB of guests and has 600MiB")
	want(t, "its hint", of(a.Create(ctx, []byte(web))), api.Unsafe, "--force")
	if vms, err := a.VMs(ctx); err != nil || len(vms) != 0 {
		t.Errorf("the refused guest was made: %+v, %v", vms, err)
	}
	if v := a.make(t, "{name: plain, memory: 256M}"); len(v.Warnings) != 0 {
		t.Errorf("a guest that stays here is warned of: %q", v.Warnings)
	}
	forced := api.NewClient(a.config.Socket())
	defer forced.Close()
	forced.Force = true
	v, err := forced.Create(ctx, []byte(web))
	if err != nil || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "641MiB") {
		t.Errorf("by force: %q, %v", v.Warnings, err)
	}
	want(t, "a start of it", of(a.Act(ctx, "web", api.Start, 0)), api.Unsafe, "start web: if the other node fails, b has to hold")
	if v, err := a.VM(ctx, "web"); err != nil || v.Run || v.State != "stopped" {
		t.Errorf("after the refusal: %+v, %v", v, err)
	}
}

// Orders and homes that cannot be are refused when they are set.
func TestRecoveryPlaceIsChecked(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	ctx := t.Context()
	want(t, "after a guest that is not there", of(a.Create(ctx, []byte("{name: web, recovery: {after: [db]}}"))), api.Usage, `recovery after "db": there is no guest of that name`)
	want(t, "a home that is not there", of(a.Create(ctx, []byte("{name: web, recovery: {home: z}}"))), api.Usage, `recovery home "z"`)
	if v := a.make(t, "{name: db, memory: 64M}"); v.Home != "a" {
		t.Errorf("home is %q", v.Home)
	}
	a.make(t, "{name: web, memory: 64M, recovery: {after: [db], priority: 7}}")
	want(t, "a cycle", of(a.Change(ctx, "db", []byte("recovery: {after: [web]}"))), api.Usage, "they would wait for each other (db after web after db)")
	if err := a.Remove(ctx, "db", false); err != nil {
		t.Fatal(err)
	}
	// What was right when it was set does not stand in the way of other changes.
	if _, err := a.Change(ctx, "web", []byte("recovery: {priority: 8}")); err != nil {
		t.Errorf("a change of something else: %v", err)
	}
}

// A guest that fails on every start is given up after its attempts, stays
// wanted, also for the next agent, and is started again by its user.
func TestGivenUpAfterItsAttempts(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "a")
	ctx := t.Context()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	a.make(t, fmt.Sprintf("{name: web, memory: 64M, disks: [{path: %s, format: raw}], recovery: {attempts: 2, backoff_seconds: 0.2}}", disk))
	v, err := a.Act(ctx, "web", api.Start, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.stop()
	if err := syscall.Kill(v.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(disk, disk+".away"); err != nil {
		t.Fatal(err)
	}
	a = run(t, a.config)
	givenUp := func() bool {
		v, err := a.VM(ctx, "web")
		return err == nil && v.Recovery != nil && v.Recovery.State == "failed"
	}
	eventually(t, "the guest to be given up", givenUp)
	if v, err := a.VM(ctx, "web"); err != nil || !v.Run || v.State != "stopped" {
		t.Errorf("given up: %+v, %v", v, err)
	}
	if kinds := a.kinds(t, "web"); !slices.Contains(kinds, "recovery-retry") || kinds[len(kinds)-1] != "recovery-failed" {
		t.Errorf("events %v", kinds)
	}
	a.stop()
	a = run(t, a.config)
	eventually(t, "the next agent to know", givenUp)
	if n := count(a.kinds(t, "web"), "start-failed"); n != 2 {
		t.Errorf("%d failed starts, two attempts were allowed", n)
	}
	if err := os.Rename(disk+".away", disk); err != nil {
		t.Fatal(err)
	}
	if v, err := a.Act(ctx, "web", api.Start, 0); err != nil || v.PID == 0 {
		t.Errorf("a start by the user: %+v, %v", v, err)
	}
	if status, err := a.Status(ctx); err != nil || slices.ContainsFunc(status.Node.Alarms, func(x api.Alarm) bool { return x.Kind == "recovery-failed" }) {
		t.Errorf("the alarm stays: %+v, %v", status.Node.Alarms, err)
	}
	if _, err := a.Act(ctx, "web", api.Kill, time.Second); err != nil {
		t.Error(err)
	}
}

// kinds lists the kinds of a guest's events, oldest first.
func (a *agent) kinds(t *testing.T, vm string) (kinds []string) {
	t.Helper()
	err := a.Events(t.Context(), api.EventFilter{VM: vm}, func(e api.Event) error {
		kinds = append(kinds, e.Kind)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

func count(list []string, word string) (n int) {
	for _, w := range list {
		if w == word {
			n++
		}
	}
	return n
}
