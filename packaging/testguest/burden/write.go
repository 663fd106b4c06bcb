package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/packaging/testguest/work"
)

// disk is what /write writes to.
const disk = "/dev/vdb"

// write writes past the page cache, each write durable when it returns, for so
// long, with depth of them under way at once.
func (b *burden) write(size, depth int, random bool, span time.Duration) (Result, error) {
	file, err := os.OpenFile(disk, os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
	if err != nil {
		return Result{}, err
	}
	defer file.Close()
	end, err := file.Seek(0, 2)
	if err != nil || size <= 0 || depth <= 0 || int64(size) > end {
		return Result{}, errors.Join(errors.New("size or depth makes no sense"), err)
	}
	places := end / int64(size)
	var mu sync.Mutex
	var result Result
	next := int64(0)
	place := func(took time.Duration) int64 {
		mu.Lock()
		defer mu.Unlock()
		if took > 0 {
			result.Took = append(result.Took, float64(took.Nanoseconds())/1000)
		}
		if next = (next + 1) % places; random {
			next = rand.Int64N(places)
		}
		return next * int64(size)
	}
	var writers sync.WaitGroup
	failed := make(chan error, depth)
	began := time.Now()
	for range depth {
		writers.Go(func() {
			content := work.Aligned(size)
			for i := range content {
				content[i] = byte(rand.Uint32())
			}
			for at := place(0); time.Since(began) < span; {
				content[0]++
				start := time.Now()
				if _, err := file.WriteAt(content, at); err != nil {
					failed <- err
					return
				}
				at = place(time.Since(start))
			}
		})
	}
	writers.Wait()
	close(failed)
	return result, <-failed
}
