package work

import "unsafe"

// Aligned is a zeroed buffer on a page boundary, as direct I/O wants it.
func Aligned(size int) []byte {
	b := make([]byte, size+PageSize)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % PageSize
	return b[skip:][:size:size]
}
