package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

var (
	seed   = flag.Uint64("chaos.seed", 0, "seed of the faults; 0 draws one")
	count  = flag.Int("chaos.faults", 1000, "at most so many faults")
	budget = flag.Duration("chaos.time", 170*time.Second, "no new batch of faults after this time")
	from   = flag.Int("chaos.from", 1, "leave out the batches of faults before this one")
)

// diskSize is the room a host has for its state, and again for memory.
const diskSize = 512 << 20

// chaos is one run.
type chaos struct {
	*lab.Lab
	t        *testing.T
	vm       api.VM
	recorder *lab.Recorder
	hosts    map[string]*power
	began    time.Time
	judge    judge
	files    map[bool][]string // what an owner and a standby have, as it was at first

	claims claims

	mu     sync.Mutex
	log    []string
	causes []cause
	batch  map[string]bool // kinds of the batch that did something
	done   map[string]int
}

// say notes a line of the fault log.
func (c *chaos) say(format string, args ...any) {
	line := fmt.Sprintf("%s %7.2f s  %s", time.Now().Format("15:04:05.000"), time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
	c.mu.Lock()
	c.log = append(c.log, line)
	c.mu.Unlock()
	fmt.Println(line)
}

func TestChaos(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	c := &chaos{t: t, began: time.Now(), hosts: map[string]*power{}, done: map[string]int{}, batch: map[string]bool{}}
	c.say("seed %d: again with -chaos.seed=%d -chaos.faults=%d -chaos.time=%v", *seed, *seed, *count, *budget)
	c.build()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	for _, h := range c.Hosts() {
		p := &power{Host: h, log: c.say, on: true}
		c.hosts[h.Name] = p
		tasks.Go(func() { p.supervise(ctx) })
	}
	tasks.Go(func() { c.watchClaims(ctx) })
	schedule := newSchedule(*seed)
	began, injected := time.Now(), 0
	for n := 1; injected < *count && time.Since(began) < *budget && !t.Failed(); n++ {
		faults := schedule.batch(*count - injected)
		if n < *from {
			continue
		}
		injected += len(faults)
		c.throw(n, faults)
		c.heal()
		c.check()
	}
	if !t.Failed() {
		c.finish()
	}
	c.say("seed %d: %d faults; those that hit something: %v", *seed, injected, c.done)
	c.say("%s", c.sum())
}

// build makes lab, cluster and guest.
func (c *chaos) build() {
	t, ctx := c.t, c.t.Context()
	root, err := filepath.Abs("../../..")
	c.must(err)
	binary, files, err := lab.Build(ctx, root, t.TempDir())
	c.must(err)
	c.Lab, err = lab.New(ctx, binary, t.Logf)
	c.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			c.keep()
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, h := range c.Hosts() {
		c.must(h.SmallDisk(diskSize))
		if h != c.W {
			c.must(h.SmallRAM(diskSize))
		}
	}
	c.must(c.Form(ctx))
	c.vm, err = c.A.CreateGuest(ctx, files, "--protection", "resume")
	c.must(err)
	_, err = c.A.API().Change(ctx, lab.GuestName, []byte("restart: {attempts: 1000, backoff_seconds: 0.01}"))
	c.must(err)
	c.recorder, err = c.Record(context.WithoutCancel(ctx), c.vm.UUID)
	c.must(err)
	t.Cleanup(func() {
		for _, overlap := range c.recorder.Stop() {
			t.Error("the guest ran twice, or is broken:", overlap)
		}
	})
	_, err = c.WaitAnswer(ctx, time.Minute)
	c.must(err)
	_, err = c.A.WaitState(ctx, time.Minute, lab.SyncedSince(time.Now()))
	c.must(err)
	_, err = c.A.WaitState(ctx, time.Minute, lab.Covered)
	c.must(err)
	c.say("%s runs on a", c.vm.Name)
	c.must(errors.Join(c.sameFiles(c.A, true), c.sameFiles(c.B, false)))
}

func (c *chaos) must(err error) {
	c.t.Helper()
	if err != nil {
		c.say("FAILED: %v", err)
		c.t.Fatal(err)
	}
}

// wrong notes what must not be and lets the run end after this batch.
func (c *chaos) wrong(format string, args ...any) {
	c.say("WRONG: "+format, args...)
	c.t.Errorf(format, args...)
}

// finish stops the guest and looks at its disk, here and on the peer.
func (c *chaos) finish() {
	ctx := c.t.Context()
	v, err := c.A.Show(ctx)
	c.must(err)
	owner := c.hosts[v.Owner]
	_, err = owner.CLI(ctx, "vm", "stop", lab.GuestName, "--timeout", "20s")
	c.must(err)
	report, err := owner.VerifyDisks(ctx, c.vm.UUID)
	c.must(err)
	c.say("disk of the owner: %s", report)
	report, err = c.hosts[map[string]string{"a": "b", "b": "a"}[v.Owner]].VerifyDisks(ctx, c.vm.UUID)
	c.must(err)
	c.say("disk of the replica: %s", report)
}

// keep saves what a person needs to find out.
func (c *chaos) keep() {
	dir, err := os.MkdirTemp("", fmt.Sprintf("vmctl-chaos-%d-", *seed))
	if err != nil {
		c.t.Error(err)
		return
	}
	c.mu.Lock()
	lines := append([]string(nil), c.log...)
	c.mu.Unlock()
	if c.recorder != nil {
		for _, s := range c.recorder.Stints() {
			lines = append(lines, fmt.Sprintf("stint on %s %s-%s counter %d-%d token %s", s.Node, s.First.Format("15:04:05.000"), s.Last.Format("15:04:05.000"), s.From, s.To, s.Token))
		}
	}
	_ = os.WriteFile(filepath.Join(dir, "faults.log"), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
	for _, h := range c.Hosts() {
		copies := map[string]string{h.LogFile(): h.Name + ".log"}
		guest := filepath.Join(h.StateDir(), "guests", c.vm.UUID)
		for _, name := range []string{"serial.log", "qemu.log", "exit.json"} {
			copies[filepath.Join(guest, name)] = h.Name + "-" + name
		}
		for from, to := range copies {
			if data, err := os.ReadFile(from); err == nil {
				_ = os.WriteFile(filepath.Join(dir, to), data, 0o644)
			}
		}
		if out, err := h.CLI(context.Background(), "events"); err == nil && h.Name != "w" {
			_ = os.WriteFile(filepath.Join(dir, h.Name+"-events.txt"), []byte(out), 0o644)
		}
	}
	c.t.Logf("seed %d: logs of the hosts and of the faults are kept in %s", *seed, dir)
	fmt.Println("kept in", dir)
}
