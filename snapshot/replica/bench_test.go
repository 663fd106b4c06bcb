package replica

import (
	"fmt"
	"os"
	"testing"

	"vmctl/snapshot/memory"

	"golang.org/x/sys/unix"
)

func BenchmarkCheckpoint(b *testing.B) {
	for _, changed := range []int{0, 655, 3276} { // of 256 MiB: 0, 1 and 5 %
		b.Run(fmt.Sprintf("256MiB/pages=%d", changed), func(b *testing.B) { benchmarkCheckpoint(b, changed) })
	}
}

// benchmarkCheckpoint measures a checkpoint from the first frame to the Ack,
// over an in-memory link; the scan, which is the pause, is left out.
func benchmarkCheckpoint(b *testing.B, changed int) {
	const size = 256 << 20
	fd, err := unix.MemfdCreate("ram", 0)
	if err != nil {
		b.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "ram")
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		b.Fatal(err)
	}
	live, err := memory.Open(fmt.Sprintf("/proc/self/fd/%d", fd), size)
	if err != nil {
		b.Fatal(err)
	}
	defer live.Close()
	shadow, err := memory.NewShadow(size)
	if err != nil {
		b.Fatal(err)
	}
	defer shadow.Close()
	root := b.TempDir()
	r, err := Open(b.Context(), Config{Dir: root + "/s", RAMDir: root + "/r", Name: "g"})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	numbers, err := OpenCounter(root + "/counter")
	if err != nil {
		b.Fatal(err)
	}
	s, err := NewSender(SenderConfig{Epoch: 1, Shadow: shadow, Numbers: numbers})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, _ := dial(r)
	if _, err := s.Attach(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	round := func() {
		n, err := s.Number()
		if err == nil {
			_, err = s.Send(b.Context(), Outgoing{Sequence: n, Blob: make([]byte, 127<<10)})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	round()
	page := make([]byte, memory.PageSize)
	b.SetBytes(int64(changed * memory.PageSize))
	for b.Loop() {
		b.StopTimer()
		for i := range changed {
			page[0]++
			if _, err := file.WriteAt(page, int64(i*20%(size/memory.PageSize))*memory.PageSize); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := memory.Scan(b.Context(), live, shadow, s.Delta(), memory.Options{}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		round()
	}
}
