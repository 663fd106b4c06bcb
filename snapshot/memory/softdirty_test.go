package memory

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/snapshot/shmtest"
)

// Environment of these tests.
const (
	envWriter = "VMCTL_TEST_WRITER"     // RAM file: be a process that writes to it
	envIdle   = "VMCTL_TEST_IDLE"       // it writes only what it is told
	envMust   = "VMCTL_TEST_SOFT_DIRTY" // the kernel has the bits: no skipping
)

func TestMain(m *testing.M) {
	if path := os.Getenv(envWriter); path != "" {
		if err := beGuest(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beGuest behaves like QEMU: it maps the RAM file once and writes from several
// threads, by itself and through system calls. On a line of its input it stands
// still, and says so; on the next it goes on. "hole N" takes a page away and
// reads it back, "write N" writes to N pages.
func beGuest(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	ram, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if os.Getenv("VMCTL_TEST_ADVISE") != "" {
		_ = unix.Madvise(ram, unix.MADV_HUGEPAGE)
	}
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return err
	}
	var world sync.RWMutex // held to read by a writer at work
	threads := 3
	if os.Getenv(envIdle) != "" {
		threads = 0
	}
	for thread := range threads {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(thread), 8))
			for {
				world.RLock()
				scribble(rng, ram, 5)
				_, _ = random.Read(ram[rng.IntN(len(ram)/PageSize)*PageSize:][:64])
				world.RUnlock()
				time.Sleep(time.Millisecond)
			}
		}()
	}
	in := bufio.NewScanner(os.Stdin)
	for stopped := false; in.Scan(); {
		var page int64
		if n, _ := fmt.Sscanf(in.Text(), "hole %d", &page); n == 1 {
			if err := (&File{file}).Zero(page*PageSize, PageSize); err != nil {
				return err
			}
			fmt.Println("read back", ram[page*PageSize])
			continue
		}
		if n, _ := fmt.Sscanf(in.Text(), "write %d", &page); n == 1 {
			spread(ram, int(page))
			fmt.Println("written", page)
			continue
		}
		if stopped {
			world.Unlock()
		} else {
			world.Lock()
		}
		stopped = !stopped
		fmt.Println("stopped", stopped)
	}
	return in.Err()
}

// program is a process like beGuest, and what finds its pages.
type program struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Reader
	live   *Image
	shadow *Shadow
	delta  *Delta
}

func startProgram(t testing.TB, dir string, pages int, env ...string) *program {
	t.Helper()
	if err := selfTest(); err != nil {
		if os.Getenv(envMust) != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	path := filepath.Join(dir, "ram")
	ram, err := Create(path, int64(pages)*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	g := &guest{path: path, ram: make([]byte, pages*PageSize)}
	p := &program{t: t, cmd: exec.Command("/proc/self/exe")}
	p.live, p.shadow, p.delta = g.open(t)
	p.cmd.Env = append(append(os.Environ(), env...), envWriter+"="+path)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	p.toggle() // it has mapped the file when it answers
	return p
}

// say sends a line and waits for the answer.
func (p *program) say(line string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatal(err)
	}
	answer, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	return answer
}

func (p *program) toggle() { p.t.Helper(); p.say("") }

func (p *program) finder(gaveUp func(error)) *Finder {
	p.t.Helper()
	tracker, err := NewTracker(p.cmd.Process.Pid, p.live)
	if err != nil {
		p.t.Fatal(err)
	}
	f := NewFinder(p.live, p.shadow, p.delta, tracker, gaveUp)
	p.t.Cleanup(func() { _ = f.Close() })
	return f
}

func (p *program) stopped(f *Finder) Stats {
	p.t.Helper()
	stats, err := f.Stopped(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return stats
}

func (p *program) exact() bool { return bytes.Equal(p.live.data, p.shadow.data) }

// The self-test either passes or says that the kernel has no such bits.
func TestSelfTest(t *testing.T) {
	err := SelfTest()
	t.Logf("self-test: %v", err)
	if err != nil && (!errors.Is(err, ErrSituation) || os.Getenv(envMust) != "") {
		t.Error(err)
	}
}

func TestSoftDirtyMissesNothing(t *testing.T) {
	const pages = 2 << 10 // few: the kernel with the bits may run under emulation
	p := startProgram(t, shmtest.TempDir(t), pages)
	f := p.finder(func(err error) { t.Errorf("gave up: %v", err) })
	p.stopped(f)
	p.toggle()
	var changed, compared uint64
	var took time.Duration
	const rounds = 60
	for round := range rounds {
		time.Sleep(5 * time.Millisecond) // the program's own time
		if round%2 == 0 {
			if _, err := f.Live(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		f.Check()
		p.toggle()
		p.delta.Reset()
		before := bytes.Clone(p.shadow.data)
		began := time.Now()
		stats := p.stopped(f)
		took += time.Since(began)
		if !p.exact() {
			t.Fatalf("round %d: a changed page was missed", round)
		}
		for page := range uint64(pages) {
			at := page * PageSize
			if !bytes.Equal(before[at:at+PageSize], p.shadow.page(page)) && !p.delta.Has(page) {
				t.Fatalf("round %d: page %d changed and is not in the delta", round, page)
			}
		}
		changed, compared = changed+stats.Pages, compared+stats.Compared
		p.toggle()
	}
	if f.Method() != SoftDirty || changed < rounds {
		t.Errorf("%s, %d pages changed", f.Method(), changed)
	}
	t.Logf("%d rounds: %d pages changed, none missed; compared %.1f %% of the memory, %v a pause",
		rounds, changed, 100*float64(compared)/rounds/pages, took/rounds)
}

// A hole that is read back looks clean: the audit finds it.
func TestSoftDirtyAuditFindsAHole(t *testing.T) {
	const pages = 1 << 10
	p := startProgram(t, shmtest.TempDir(t), pages)
	var reason error
	f := p.finder(func(err error) { reason = err })
	p.toggle()
	time.Sleep(200 * time.Millisecond) // most pages get written
	p.toggle()
	p.stopped(f)
	page := 0
	for bytes.Equal(p.shadow.page(uint64(page)), zeroPage[:]) {
		page++
	}
	p.say(fmt.Sprintf("hole %d", page))
	rounds := 0
	for ; reason == nil && rounds < auditParts; rounds++ {
		p.stopped(f)
	}
	if !errors.Is(reason, ErrMissed) || !p.exact() || f.Method() != Compare {
		t.Errorf("%d rounds: %v", rounds, reason)
	}
}

func TestSoftDirtyRefuses(t *testing.T) {
	refused := func(t *testing.T, p *program, word string) {
		t.Helper()
		tracker, err := NewTracker(p.cmd.Process.Pid, p.live)
		if err == nil {
			_ = tracker.Close()
		}
		if !errors.Is(err, ErrSituation) || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want a refusal for %s", err, word)
		}
		t.Log(err)
	}
	t.Run("second writer", func(t *testing.T) {
		p := startProgram(t, shmtest.TempDir(t), 512)
		file, err := os.OpenFile(p.live.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		ram, err := unix.Mmap(int(file.Fd()), 0, 512*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Munmap(ram) }()
		refused(t, p, "may write to it")
	})
	t.Run("another process", func(t *testing.T) {
		p := startProgram(t, shmtest.TempDir(t), 512)
		tracker, err := NewTracker(os.Getpid(), p.live) // maps it to read
		if err == nil {
			_ = tracker.Close()
		}
		if !errors.Is(err, ErrSituation) {
			t.Errorf("%v, want a refusal", err)
		}
	})
	t.Run("huge pages", func(t *testing.T) {
		dir := t.TempDir()
		if err := unix.Mount("huge", dir, "tmpfs", 0, "huge=always,size=64m"); err != nil {
			t.Skipf("no tmpfs with huge pages here: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		refused(t, startProgram(t, dir, 4<<10, "VMCTL_TEST_ADVISE=1"), "huge pages")
	})
	t.Run("swap", func(t *testing.T) {
		device := os.Getenv("VMCTL_TEST_SWAP")
		if device == "" {
			t.Skip("no device to swap to")
		}
		p := startProgram(t, shmtest.TempDir(t), 512)
		f := p.finder(func(err error) { t.Log(err) })
		if out, err := exec.Command("swapon", device).CombinedOutput(); err != nil {
			t.Fatalf("swapon: %v %s", err, out)
		}
		f.Check()
		if f.Method() != Compare {
			t.Error("swap was not noticed")
		}
		refused(t, p, "swap")
	})
}
