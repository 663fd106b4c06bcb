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
	code := m.Run()
	return code, shared.close()
}

// bench is one lab with a guest on a, watched.
type bench struct {
	*lab.Lab
	t        *testing.T
	vm       api.VM // as the test found it
	recorder *lab.Recorder
	first    lab.Proof
	saved    api.VM // as it was seen last with a complete replica
	ear      *lab.Ear
	began    time.Time
	logged   map[*lab.Host]int // bytes of the host's log by then
	census   map[*lab.Host]string
	mended   bool // another test can have it
}

// newBench forms a cluster, starts a guest on a and waits until it answers and,
// if it is protected, its replica is complete.
func newBench(t *testing.T, flags ...string) *bench {
	t.Helper()
	return newBenchOn(t, func(*lab.Lab) error { return nil }, flags...)
}

// newBenchOn prepares the hosts before they are started.
func newBenchOn(t *testing.T, prepare func(*lab.Lab) error, flags ...string) *bench {
	t.Helper()
	t.Parallel() // a lab has its own hosts, networks and files
	return form(t, prepare, flags...)
}

func form(t *testing.T, prepare func(*lab.Lab) error, flags ...string) *bench {
	t.Helper()
	ctx := t.Context()
	l, err := lab.New(ctx, binary, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Lab: l, t: t, census: map[*lab.Host]string{}}
	b.begin()
	b.ear, err = l.Hear()
	b.must(err)
	b.must(prepare(l))
	b.must(l.Form(ctx))
	b.vm, err = l.A.CreateGuest(ctx, files, flags...)
	b.must(err)
	b.watch(nil)
	return b
}

// begin notes where the test begins, and how it ends.
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
		if b.t.Failed() {
			b.tell()
		} else if b.mended && shared.put(b) {
			return
		}
		if err := b.close(); err != nil {
			b.t.Error(err)
		}
	})
}

// watch begins to record the guest, wakes it if there is need, and waits until it
// is as it has to be when a test begins.
func (b *bench) watch(wake func() error) {
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
	if wake != nil {
		b.must(wake())
	}
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
// lease and the window after it are long over.
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
	for _, h := range []*lab.Host{b.A, b.B, b.W} {
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
