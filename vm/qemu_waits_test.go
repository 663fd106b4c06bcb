package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// still is how long a QEMU that is not to execute is watched.
const still = time.Second

// hmp runs a command of QEMU's human monitor.
func (p *process) hmp(command string) (text string) {
	p.t.Helper()
	if err := p.qmp.Execute(context.Background(), "human-monitor-command", map[string]string{"command-line": command}, &text); err != nil {
		p.t.Fatalf("%s: %v", command, err)
	}
	return text
}

// translated is how many blocks of guest code TCG has translated: it translates
// before it executes, so that none means that not one instruction was.
func (p *process) translated() uint64 {
	p.t.Helper()
	for line := range strings.Lines(p.hmp("info jit")) {
		if rest, found := strings.CutPrefix(line, "TB count"); found {
			count, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return count
		}
	}
	p.t.Fatalf("no count of blocks: %s", p.hmp("info jit"))
	return 0
}

// vcpuTime is the processor time that the vCPU threads have used; 0 while there
// are none.
func (p *process) vcpuTime() (used time.Duration) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, task := range tasks {
		name, _ := os.ReadFile(task + "/comm")
		stat, _ := os.ReadFile(task + "/schedstat") // ns used, ns waited, slices
		if words := strings.Fields(string(stat)); bytes.HasPrefix(name, []byte("CPU ")) && len(words) == 3 {
			ns, err := strconv.ParseInt(words[0], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			used += time.Duration(ns)
		}
	}
	return used
}

// facts are what execution would change.
type facts struct {
	state, registers string
	blocks           uint64
	ram              [sha256.Size]byte
	serial           string
}

func (p *process) facts() facts {
	p.t.Helper()
	ram, err := os.ReadFile(p.layout.RAM())
	if err != nil {
		p.t.Fatal(err)
	}
	return facts{p.state(), p.hmp("info registers -a"), p.translated(), sha256.Sum256(ram), strings.Join(serialLines(p.t, p.layout), "\n")}
}

// A QEMU that waits to take a guest executes nothing, before it was given the
// guest's state and after, until it is told to go on. Its vCPU threads use
// processor time meanwhile, to start and to load: that alone proves no execution.
func TestQEMUWaitsWithoutExecuting(t *testing.T) {
	t.Parallel()
	h := realHost(t)
	s := Spec{Name: "count", Memory: 32 * MiB, CPUs: 2, Disks: []Disk{{}}}.Defaults(h)
	here, there := testLayout(t, s.UUID), testLayout(t, s.UUID)
	putDisk(t, here, s.Disks[0])
	putRAM(t, here, s.Memory)
	source := launch(t, Cmdline(s, here, h, Options{}), here)
	awaitCount(t, here, 5)
	source.execute("stop", nil)
	blob, left := source.saveState(), source.hmp("info registers -a")
	source.execute("quit", nil)
	<-source.done
	mustRun(t, "cp", "--sparse=always", here.RAM(), there.RAM())
	mustRun(t, "cp", here.Disk(s.Disks[0], false).Path, there.Disk(s.Disks[0], true).Path)

	ram, err := os.ReadFile(here.RAM())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(ram)

	target := launch(t, Cmdline(s, there, h, Options{Incoming: true, Replica: true}), there)
	t.Logf("to start, the vCPU threads took %v", target.vcpuTime())
	executedNothing(t, target, "inmigrate", func(f facts) {
		if f.blocks != 0 || f.ram != sum || strings.Count(f.registers, "EIP=0000fff0") != s.CPUs || strings.Count(f.registers, "CS =f000 ffff0000") != s.CPUs {
			t.Errorf("it is not at the reset vector: %d blocks translated, %s", f.blocks, f.registers)
		}
	})
	before := target.vcpuTime()
	target.loadState(blob)
	t.Logf("to load the state, they took %v", target.vcpuTime()-before)
	executedNothing(t, target, "paused", func(f facts) {
		if f.blocks != 0 || f.ram != sum || f.registers != left {
			t.Errorf("it is not where the guest was left: %d blocks translated, %s, left at %s", f.blocks, f.registers, left)
		}
	})
	// What was looked at does show an execution.
	loaded, count := target.facts(), lastCount(t, there)
	before = target.vcpuTime()
	target.execute("cont", nil)
	awaitCount(t, there, count+1)
	t.Logf("to go on, they took %v", target.vcpuTime()-before)
	target.execute("stop", nil)
	if now := target.facts(); now.blocks == 0 || now.registers == loaded.registers || now.ram == loaded.ram || now.serial == loaded.serial {
		t.Errorf("an execution is not seen: %+v", now)
	}
}

// executedNothing watches for a while that a QEMU executes nothing.
func executedNothing(t *testing.T, p *process, state string, check func(facts)) {
	t.Helper()
	first, used := p.facts(), p.vcpuTime()
	check(first)
	if first.state != state {
		t.Errorf("it is %s, not %s", first.state, state)
	}
	for range 10 {
		time.Sleep(still / 10)
		if now := p.facts(); now != first {
			t.Errorf("something changed while it was %s: %+v, first %+v", state, now, first)
		}
	}
	t.Logf("while it was %s for %v, they took %v", state, still, p.vcpuTime()-used)
}
