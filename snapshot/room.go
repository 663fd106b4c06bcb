package snapshot

import (
	"context"
	"errors"
	"fmt"

	"vmctl/snapshot/memory"
)

// ErrNoRoom says that this host has too little memory for the guest's checkpoints. The
// guest goes on without them; they are tried again.
var ErrNoRoom = errors.New("too little memory for checkpoints")

// checkRoom looks before a link is made whether this host can hold the copy of the
// guest's memory that checkpoints are made from, as far as it is not there yet.
func (p *Protector) checkRoom() error {
	if p.shadow == nil || p.config.Room == nil {
		return nil
	}
	image, err := memory.Allocated(p.config.RAM)
	if err != nil {
		return err
	}
	need, room := max(0, image-p.shadow.Held()), p.config.Room()
	if room < 0 || need > room {
		return fmt.Errorf("%w: this host can spare %d MiB for a copy of the guest's, which takes %d MiB more", ErrNoRoom, max(0, room)>>20, need>>20)
	}
	return nil
}

// Held is how many bytes the copy of the guest's memory takes at present.
func (p *Protector) Held() int64 {
	if p.shadow == nil {
		return 0
	}
	return p.shadow.Held()
}

// GiveUp gives back what the copy of the guest's memory takes, because this host is
// short of it. A link ends, and soon the copy with it.
func (p *Protector) GiveUp() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil {
		p.link(fmt.Errorf("%w: this host is short of it", ErrNoRoom))
		return nil
	}
	return p.forgetMemory() // while p.mu is held no link begins
}

// linked says how to end the link under way; nil: there is none.
func (p *Protector) linked(end context.CancelCauseFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = end
}

// forgetMemory gives the copy back: the next checkpoint is a full image. There must
// be no checkpoint under way.
func (p *Protector) forgetMemory() error {
	if p.shadow == nil {
		return nil
	}
	p.sender.Forget()
	p.finder.Doubt()
	return p.shadow.Clear()
}
