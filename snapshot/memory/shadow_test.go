package memory

import (
	"bytes"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestClear: a cleared shadow takes no memory, reads as zeros, and is filled again by
// the next Scan.
func TestClear(t *testing.T) {
	const size = 3*BlockSize + 5*PageSize
	g := newGuest(t, size)
	ram := g.ram
	live, shadow, _ := g.open(t)
	for at := 0; at < size; at += PageSize {
		ram[at] = byte(at/PageSize + 1)
	}
	clear(ram[BlockSize : BlockSize+PageSize]) // zero, and there
	scan := func() {
		t.Helper()
		mustScan(t, live, shadow, NewDelta(shadow.Pages()), Options{})
		if shadow.Held() != size || !bytes.Equal(shadow.data, ram) {
			t.Fatalf("%d bytes are held", shadow.Held())
		}
	}
	scan()
	delta := NewDelta(shadow.Pages())
	if taken, err := shadow.MarkAll(delta); err != nil || taken != size-PageSize || delta.Pages() != size/PageSize {
		t.Errorf("%d bytes are said to be taken, %d pages marked, %v", taken, delta.Pages(), err)
	}
	if err := shadow.Clear(); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, shadow.data); shadow.Held() != 0 || n != 0 {
		t.Errorf("%d bytes are held, %d pages in memory", shadow.Held(), n)
	}
	if !bytes.Equal(shadow.data, make([]byte, size)) {
		t.Error("it does not read as zeros")
	}
	scan()
	shadow.using.Store(true)
	if err := shadow.Clear(); err != ErrBusy {
		t.Errorf("in use: %v", err)
	}
	shadow.using.Store(false)
}

// resident is how many pages of a mapping are in memory.
func resident(t *testing.T, data []byte) (n int) {
	t.Helper()
	pages := make([]byte, len(data)/PageSize)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, p := range pages {
		n += int(p & 1)
	}
	return n
}
