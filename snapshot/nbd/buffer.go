package nbd

import (
	"math/bits"
	"sync"
)

// Payload buffers of 4 KiB to 2 MiB are kept for reuse, one pool per power of
// two; others are rare and left to the garbage collector.
const (
	smallestShift = 12
	largestShift  = 21
)

var pools [largestShift - smallestShift + 1]sync.Pool

func poolOf(size int) *sync.Pool {
	shift := max(bits.Len(uint(max(size, 1)-1)), smallestShift)
	if shift > largestShift {
		return nil
	}
	return &pools[shift-smallestShift]
}

func takeBuffer(size int) []byte {
	if size == 0 {
		return nil
	}
	pool := poolOf(size)
	if pool == nil {
		return make([]byte, size)
	}
	if kept, ok := pool.Get().(*[]byte); ok {
		return (*kept)[:size]
	}
	return make([]byte, size, 1<<max(bits.Len(uint(size-1)), smallestShift))
}

func giveBuffer(buf []byte) {
	if cap(buf) == 0 {
		return
	}
	if pool := poolOf(cap(buf)); pool != nil && cap(buf)&(cap(buf)-1) == 0 {
		buf = buf[:cap(buf)]
		pool.Put(&buf)
	}
}
