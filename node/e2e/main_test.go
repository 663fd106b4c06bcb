package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

var (
	binary string
	files  lab.GuestFiles
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := prepare(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// prepare builds what all tests share.
func prepare(m *testing.M) (int, error) {
	ctx := context.Background()
	root, err := filepath.Abs("../..")
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "vmctl-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if binary, files, err = lab.Build(ctx, root, dir); err != nil {
		return 1, err
	}
	if err := shared.open(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// bench is one lab with a guest on a, watched.
type bench struct {
	*lab.Lab
	A, B     *lab.Host // the guest's owner when the test began, and its peer
	t        *testing.T
	kind     *kind
	last     bool   // nobody has it after this test
	vm       api.VM // as the test found it
	recorder *lab.Recorder
	first    lab.Proof
	saved    api.VM // as it was seen last with a complete replica
	ear      *lab.Ear
	began    time.Time
	logged   map[*lab.Host]int // bytes of the host's log by then
	census   []string          // what ran on owner, peer and witness when the lab was new
	undo     [][]string        // commands that mend what the test has changed
	// recovered is when the guest was recovered last, at the latest.
	recovered time.Time
	mended    bool // another test can have it
}

// newBench has a lab of its own, with a guest made with these flags. Tests to which
// a qcow2 disk matters need one: a replica's disks are raw, and so are those of a
// guest that was taken over.
func newBench(t *testing.T, flags ...string) *bench {
	t.Helper()
	return lastBench(t, &kind{prepare: plain, flags: flags})
}

// form forms a cluster, starts a guest on a and waits until it answers and, if it
// is protected, its replica is complete.
func (b *bench) form() {
	b.t.Helper()
	ctx := b.t.Context()
	var err error
	b.Lab, err = lab.New(ctx, binary, b.t.Logf)
	b.must(err)
	b.A, b.B = b.Lab.A, b.Lab.B
	b.begin()
	b.ear, err = b.Hear()
	b.must(err)
	b.must(b.kind.prepare(b.Lab))
	b.must(b.Form(ctx))
	b.vm, err = b.A.CreateGuest(ctx, files, b.kind.flags...)
	b.must(err)
	b.watch()
	if b.last {
		return
	}
	if r := b.saved.Replica.Resync; r == nil || r.Kind != api.ResyncFull || r.TotalBytes < 64<<20 {
		b.t.Errorf("the first copy: %+v", r)
	}
	if b.vm.Protection.Level == "resume" {
		b.standby(b.A, b.B)
	}
	for _, h := range b.roles() {
		b.census = append(b.census, b.kinds(h))
	}
}

// begin notes where the test begins, and looks at the hosts' logs at its end.
func (b *bench) begin() {
	b.began, b.logged = time.Now(), map[*lab.Host]int{}
	for _, h := range b.Hosts() {
		if info, err := os.Stat(h.LogFile()); err == nil {
			b.logged[h] = int(info.Size())
		}
	}
	b.t.Cleanup(func() {
		for _, h := range b.Hosts() {
			if log := b.logOf(h); bytes.Contains(log, []byte("DATA RACE")) || bytes.Contains(log, []byte("panic:")) {
				b.t.Errorf("%s has a race or a panic in its log", h.Name)
			}
		}
	})
}

// watch begins to record the guest and waits until it is as it has to be when a
// test begins.
func (b *bench) watch() {
	b.t.Helper()
	ctx := b.t.Context()
	var err error
	b.recorder, err = b.Record(context.WithoutCancel(ctx), b.vm.UUID)
	b.must(err)
	b.t.Cleanup(func() {
		for _, overlap := range b.recorder.Stop() {
			b.t.Error("the guest ran twice, or is broken:", overlap)
		}
		for _, text := range b.recorder.Started() {
			b.t.Log("no second execution: ", text)
		}
	})
	b.first, err = b.WaitAnswer(ctx, time.Minute)
	b.must(err)
	if b.vm.Protection.Level != "none" {
		b.saved, err = b.A.WaitState(ctx, time.Minute, lab.SyncedSince(time.Now()))
		b.must(err)
	}
}

// close removes the lab.
func (b *bench) close() error {
	if b.ear != nil {
		b.ear.Close()
	}
	if b.Lab == nil {
		return nil
	}
	return b.Lab.Close()
}

// logOf is what a host has logged since the test began.
func (b *bench) logOf(h *lab.Host) []byte { return lab.Since(h.LogFile(), int64(b.logged[h])) }

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// synced waits until the guest's owner has a complete replica.
func (b *bench) synced(owner *lab.Host) api.VM {
	b.t.Helper()
	v, err := owner.WaitState(b.t.Context(), time.Minute, lab.Synced)
	b.must(err)
	b.saved = v
	return v
}

// resumed checks that the guest on a host is the one that was started: same
// memory, not older than its last checkpoint, counter going on, nothing broken,
// its disks as sound as its memory.
func (b *bench) resumed(on *lab.Host, after time.Time) lab.Stint {
	b.t.Helper()
	stint, err := b.recorder.WaitOn(b.t.Context(), on.Name, after, 30*time.Second)
	b.must(err)
	proof, err := b.WaitAnswer(b.t.Context(), 10*time.Second)
	b.must(err)
	if proof.Token != b.first.Token || proof.Broken || proof.Counter < stint.From {
		b.t.Fatalf("not the guest that was started, or broken: first %+v, now %+v", b.first, proof)
	}
	if least := b.recorder.CounterAt(b.saved.Checkpoint.Time.Time); stint.From < least {
		b.t.Errorf("it goes on at counter %d, but checkpoint %d has counter %d", stint.From, b.saved.Checkpoint.Sequence, least)
	}
	found, err := on.VerifyRunning(b.t.Context(), b.vm.UUID)
	b.must(err)
	b.t.Logf("the guest's disks on %s: %s", on.Name, found)
	return stint
}

// notTaken sees that b has missed the owner, and has not started the guest when its
// lease and the window after it are long over: b counts them by the same clock as this
// test, however slow either is.
func (b *bench) notTaken() {
	b.t.Helper()
	b.alarm(b.B, "peer-lost", true)
	time.Sleep(4 * time.Second)
	if pid := b.B.QEMU(b.t.Context(), b.vm.UUID); pid != 0 {
		b.t.Errorf("b has started the guest, process %d", pid)
	}
}

// tell prints what a person would look at after a failure.
func (b *bench) tell() {
	for _, h := range b.Hosts() {
		b.t.Logf("--- log of %s\n%s", h.Name, lab.LastLines(b.logOf(h), 40))
		if console := h.Console(b.vm.UUID); console != "" {
			b.t.Logf("--- the guest's console on %s\n%s", h.Name, console)
		}
	}
	if b.ear != nil {
		b.t.Logf("--- told %q", b.ear.All())
	}
	if b.recorder != nil {
		b.t.Logf("--- stints %+v", b.recorder.Stints())
	}
}
