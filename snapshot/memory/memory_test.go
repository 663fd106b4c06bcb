package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// guest is a RAM file with a second, writable mapping: QEMU's.
type guest struct {
	path string
	ram  []byte
}

// newGuest makes guest RAM on tmpfs (a memfd, reachable by name).
func newGuest(t testing.TB, size int) *guest {
	t.Helper()
	fd, err := unix.MemfdCreate("ram", 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "ram")
	t.Cleanup(func() { file.Close() })
	return mapGuest(t, file, fmt.Sprintf("/proc/self/fd/%d", fd), size)
}

// newGuestOnDisk makes guest RAM on an ordinary file system.
func newGuestOnDisk(t testing.TB, size int) *guest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ram")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return mapGuest(t, file, path, size)
}

func mapGuest(t testing.TB, file *os.File, path string, size int) *guest {
	t.Helper()
	if err := file.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	ram, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(ram) })
	return &guest{path, ram}
}

func (g *guest) page(i int) []byte { return g.ram[i*PageSize : (i+1)*PageSize] }

func (g *guest) open(t testing.TB) (*Image, *Shadow, *Delta) {
	t.Helper()
	live, err := Open(g.path, int64(len(g.ram)))
	if err != nil {
		t.Fatal(err)
	}
	shadow, err := NewShadow(int64(len(g.ram)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(live.Close(), shadow.Close()); err != nil {
			t.Error(err)
		}
	})
	return live, shadow, NewDelta(live.Pages())
}

// scribble changes n random pages in ways guests do: one byte, all, to zero.
func scribble(rng *rand.Rand, ram []byte, n int) {
	for range n {
		page := ram[rng.IntN(len(ram)/PageSize)*PageSize:][:PageSize]
		switch rng.IntN(4) {
		case 0:
			clear(page)
		case 1:
			page[rng.IntN(PageSize)]++
		case 2:
			for i := 0; i < PageSize; i += 8 {
				page[i] = byte(rng.Uint32())
			}
		default:
			for i := 0; i < PageSize; i += 16 {
				page[i] = byte(i * (1 + rng.IntN(3)))
			}
		}
	}
}

func mustScan(t testing.TB, live *Image, shadow *Shadow, delta *Delta, opts Options) Stats {
	t.Helper()
	stats, err := Scan(context.Background(), live, shadow, delta, opts)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

func TestScanFindsExactlyTheChangedPages(t *testing.T) {
	const pages = 64*9 + 5 // a short last block
	for _, place := range []struct {
		name string
		make func(testing.TB, int) *guest
	}{{"tmpfs", newGuest}, {"disk", newGuestOnDisk}} {
		for threads := 1; threads <= 3; threads++ {
			t.Run(fmt.Sprintf("%s/%d", place.name, threads), func(t *testing.T) {
				g := place.make(t, pages*PageSize)
				live, shadow, delta := g.open(t)
				if stats := mustScan(t, live, shadow, delta, Options{Threads: threads}); stats.Pages != 0 {
					t.Fatalf("untouched RAM: %d pages changed", stats.Pages)
				}
				want := map[uint64]bool{}
				for _, p := range []int{0, 1, 63, 64, 200, 201, 202, 575, pages - 1} {
					g.page(p)[p%PageSize]++
					want[uint64(p)] = true
				}
				stats := mustScan(t, live, shadow, delta, Options{Threads: threads})
				if stats.Pages != uint64(len(want)) || stats.Bytes != stats.Pages*PageSize || delta.Pages() != stats.Pages {
					t.Fatalf("stats %+v, delta %d, want %d pages", stats, delta.Pages(), len(want))
				}
				for p := range uint64(pages) {
					if delta.Has(p) != want[p] {
						t.Errorf("page %d in delta: %v", p, delta.Has(p))
					}
				}
				if !bytes.Equal(shadow.data, g.ram) {
					t.Error("shadow differs from RAM")
				}
				if stats := mustScan(t, live, shadow, delta, Options{Threads: threads}); stats.Pages != 0 {
					t.Errorf("nothing changed: %d pages", stats.Pages)
				}
			})
		}
	}
}

func TestScanLeavesHolesAlone(t *testing.T) {
	g := newGuest(t, 64<<20)
	live, shadow, delta := g.open(t)
	g.page(3000)[0] = 1
	stats := mustScan(t, live, shadow, delta, Options{})
	if stats.Compared != BlockPages {
		t.Errorf("compared %d pages, want one block", stats.Compared)
	}
	if n, err := Allocated(g.path); err != nil || n > BlockSize {
		t.Errorf("%d bytes of RAM allocated by looking (%v)", n, err)
	}
	// A page that a balloon took away reads as zeros: a change.
	hole := int64(3000 * PageSize)
	fd, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if err := (&File{fd}).Zero(hole, PageSize); err != nil {
		t.Fatal(err)
	}
	delta.Reset()
	if mustScan(t, live, shadow, delta, Options{}); !delta.Has(3000) || shadow.data[hole] != 0 {
		t.Error("punched page not found")
	}
}

func TestScanOfATruncatedFileIsAnError(t *testing.T) {
	for _, keep := range []int64{0, 5 * PageSize, 1 << 20} {
		g := newGuest(t, 8<<20)
		scribble(rand.New(rand.NewPCG(1, 1)), g.ram, 500)
		live, shadow, delta := g.open(t)
		mustScan(t, live, shadow, delta, Options{})
		if err := os.Truncate(g.path, keep); err != nil {
			t.Fatal(err)
		}
		if _, err := Scan(context.Background(), live, shadow, delta, Options{}); !errors.Is(err, ErrSize) {
			t.Errorf("keep %d: %v", keep, err)
		}
		// The file may also shrink after the check: then it is the fault.
		s := &scan{ctx: context.Background(), live: live, shadow: shadow, delta: delta}
		s.work()
		if failure := s.failure.Load(); failure == nil || !errors.Is(*failure, ErrFault) {
			t.Errorf("keep %d: fault not reported", keep)
		}
	}
}

func TestScanRefuses(t *testing.T) {
	g := newGuest(t, 1<<20)
	live, shadow, delta := g.open(t)
	if _, err := Open(g.path, 2<<20); !errors.Is(err, ErrSize) {
		t.Errorf("wrong size: %v", err)
	}
	if _, err := Scan(context.Background(), live, shadow, NewDelta(5), Options{}); !errors.Is(err, ErrSize) {
		t.Errorf("wrong delta: %v", err)
	}
	if err := shadow.acquire(); err != nil {
		t.Fatal(err)
	}
	if _, err := Scan(context.Background(), live, shadow, delta, Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("busy: %v", err)
	}
	shadow.release()
	g.page(7)[0] = 1
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Scan(ctx, live, shadow, delta, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if mustScan(t, live, shadow, delta, Options{}); !delta.Has(7) {
		t.Error("page lost over a cancelled scan")
	}
}

// A scan in the pause must not allocate with the amount of change.
func TestScanAllocatesNothingThatGrows(t *testing.T) {
	g := newGuest(t, 32<<20)
	live, shadow, delta := g.open(t)
	rng := rand.New(rand.NewPCG(2, 2))
	for range 3 {
		scribble(rng, g.ram, 4000)
		if n := testing.AllocsPerRun(1, func() { mustScan(t, live, shadow, delta, Options{}) }); n > 12 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestScanOfARunningGuestIsMadeGoodByTheNext(t *testing.T) {
	g := newGuest(t, 16<<20)
	live, shadow, delta := g.open(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		rng := rand.New(rand.NewPCG(3, 3))
		for {
			select {
			case <-stop:
				return
			default:
				scribble(rng, g.ram, 10)
			}
		}
	}()
	for range 10 {
		mustScan(t, live, shadow, delta, Options{})
	}
	close(stop)
	<-done
	mustScan(t, live, shadow, delta, Options{})
	if !bytes.Equal(shadow.data, g.ram) {
		t.Error("shadow differs from RAM")
	}
}
