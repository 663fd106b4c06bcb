package witness

import (
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

// Memory is given back while it is calm; what comes begins the wait anew, and
// takes the limit away.
func TestTidyWhileCalm(t *testing.T) {
	defer loosen()
	var calls []bool
	now := time.Now()
	p := &loop{tidy: func(first bool) { calls = append(calls, first); debug.SetMemoryLimit(1 << 40) }}
	sweep := func(n int) {
		for range n {
			now = now.Add(time.Second)
			p.sweep(now)
		}
	}
	limited := func() bool { return debug.SetMemoryLimit(-1) != math.MaxInt64 }
	sweep(calmAfter - 1)
	if len(calls) > 0 {
		t.Fatal("tidied too soon")
	}
	sweep(1 + 2*calmAfter)
	if !slices.Equal(calls, []bool{true, false, false}) || !limited() {
		t.Fatalf("calm: %v", calls)
	}
	for name, disturb := range map[string]func(){
		"a new link":          func() { p.changed = true },
		"unfinished messages": func() { p.held = quick + 1 },
	} {
		calls = nil
		disturb()
		sweep(1)
		if limited() {
			t.Errorf("%s: the limit stays", name)
		}
		p.held = 0
		sweep(calmAfter - 1)
		if len(calls) > 0 {
			t.Errorf("%s: tidied too soon after it", name)
		}
		sweep(1)
		if !slices.Equal(calls, []bool{true}) || !limited() {
			t.Errorf("after %s: %v", name, calls)
		}
	}
}

var kept, thrown []byte

// The heap of a tightened process does not grow with its garbage.
func TestTightenedHeap(t *testing.T) {
	defer loosen()
	kept = make([]byte, 16<<20)
	defer func() { kept, thrown = nil, nil }()
	// grows says how much more memory is mapped at most while garbage comes.
	grows := func() (most uint64) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		before := m.Sys - m.HeapReleased
		for range 250 {
			thrown = make([]byte, 64<<10)
			runtime.ReadMemStats(&m)
			most = max(most, m.Sys-m.HeapReleased-min(before, m.Sys-m.HeapReleased))
		}
		return most
	}
	debug.FreeOSMemory()
	loose := grows()
	debug.FreeOSMemory()
	tighten()
	if tight := grows(); tight > 6<<20 || loose < 8<<20 {
		t.Errorf("with 16 MiB in use the process grew by %d bytes, tightened by %d", loose, tight)
	}
}
