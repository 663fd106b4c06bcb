package main

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"vmctl/packaging/testguest/work"
)

// dirtier rewrites pages of memory, one after the other with a stride, so that
// each is new for a long while.
type dirtier struct {
	memory []byte
	rates  chan int // bytes a second
}

// dirty writes rate bytes a second from now on, all over so many bytes of
// memory (whole pages of them), which the first request takes.
func (b *burden) dirty(memory, rate int) error {
	if b.writer == nil {
		b.writer = &dirtier{memory: work.Aligned(max(memory, work.PageSize) / work.PageSize * work.PageSize), rates: make(chan int)}
		for at := 0; at < len(b.writer.memory); at += work.PageSize {
			b.writer.page(at)
		}
		go b.writer.work()
	}
	b.writer.rates <- rate
	return nil
}

// page fills a page with what compresses as badly as most data does by half:
// every other word is random.
func (d *dirtier) page(at int) {
	seed := rand.Uint64()
	for i := at; i < at+work.PageSize; i += 16 {
		seed = seed*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(d.memory[i:], seed)
	}
}

// work writes what is due every few milliseconds; what a pause made late is left out.
func (d *dirtier) work() {
	ticker := time.NewTicker(5 * time.Millisecond)
	rate, next, due, last := 0, 0, 0.0, time.Now()
	for {
		select {
		case rate = <-d.rates:
			due = 0
		case now := <-ticker.C:
			due += float64(rate) * min(now.Sub(last).Seconds(), 0.1)
			last = now
		}
		for ; due >= work.PageSize; due -= work.PageSize {
			d.page(next)
			next = (next + 7919*work.PageSize) % len(d.memory)
		}
	}
}
