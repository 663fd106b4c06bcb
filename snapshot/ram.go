package snapshot

import (
	"cmp"
	"errors"

	"vmctl/snapshot/memory"
	"vmctl/snapshot/replica"
)

func (p *Protector) openMemory() (err error) {
	if p.image, err = memory.Open(p.config.RAM, p.config.RAMSize); err != nil {
		return err
	}
	if p.shadow, err = memory.NewShadow(p.config.RAMSize); err != nil {
		return err
	}
	counter, err := replica.OpenCounter(p.config.Counter)
	if err != nil {
		return err
	}
	p.sender, err = replica.NewSender(replica.SenderConfig{
		Epoch: p.config.Epoch, Spec: p.config.Spec, Shadow: p.shadow, Numbers: counter, Share: p.config.Share, Log: p.config.Log, AckTimeout: cmp.Or(p.config.patience, ackTimeout),
	})
	if err != nil {
		return err
	}
	p.finder = memory.NewFinder(p.image, p.shadow, p.sender.Delta(), p.tracker(), p.compareAll)
	return nil
}

// tracker is what saves comparing all of the memory, or nil.
func (p *Protector) tracker() memory.Dirty {
	tracker, err := memory.NewTracker(p.config.PID, p.image)
	if err != nil {
		p.log.Info("all of the guest's memory is compared in every pause", "reason", err)
		return nil
	}
	return tracker
}

// compareAll is told when the tracker is not relied on any more.
func (p *Protector) compareAll(reason error) {
	p.log.Warn("the kernel's list of written pages is not used any more", "reason", reason)
	p.config.Noted("memory-compared", "all of the guest's memory is compared in every pause from now on: "+reason.Error())
}

func (p *Protector) closeMemory() (err error) {
	if p.finder != nil {
		err = p.finder.Close()
	}
	if p.image != nil {
		err = errors.Join(err, p.image.Close())
	}
	if p.shadow != nil {
		err = errors.Join(err, p.shadow.Close())
	}
	return err
}
