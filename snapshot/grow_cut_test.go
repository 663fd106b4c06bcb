package snapshot

import (
	"context"
	"slices"
)

// grownSteps are the life of a whole replica whose disks grow: once while it is
// whole, once in the middle of the resync that follows, until it counts again.
func (g *teller) grownSteps() []func() error {
	scribble := func(writes int) func() error { return func() error { return g.scribble(writes) } }
	return []func() error{
		g.link, g.fill, g.resync, g.whole,
		g.agent, g.checkpoint, scribble(3), g.flush, scribble(2),
		g.grow, g.link, g.resync, scribble(4), g.zeroSome,
		g.grow, g.link, g.resync, scribble(4), g.whole, scribble(2),
		g.agent, g.checkpoint, scribble(2),
	}
}

func init() {
	for _, how := range []string{"booted", "resumed"} {
		endings["grown, "+how] = func(g *teller) error { return endings["resync, "+how](g) }
	}
}

// grow lets go of the replica and opens it with larger disks. That they are to be
// is durable before the first of them is: config stands for that.
func (g *teller) grow() error {
	if err := g.closeSender(); err != nil {
		return err
	}
	_ = g.disks.Close()
	if err := g.s.Close(); err != nil {
		return err
	}
	g.config.Disks = slices.Clone(g.config.Disks)
	for i := range g.config.Disks {
		d := &g.config.Disks[i]
		d.Was, d.Size = d.Size, d.Size+int64(3+7*i)*sector
		g.ledger.grow(d.Name, int(d.Size/sector))
	}
	opened, err := OpenStandby(context.Background(), g.config)
	if err != nil {
		return err
	}
	g.s, g.config.Disks = opened, slices.Clone(g.config.Disks)
	for i := range g.config.Disks {
		g.config.Disks[i].Was = 0
	}
	return nil
}

// grow makes a disk larger, now and at every mark: the new part was empty.
func (l *ledger) grow(disk string, sectors int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.disks[disk]
	for len(d.versions) < sectors {
		d.versions, d.acked, d.promised = append(d.versions, []uint64{0}), append(d.acked, 0), append(d.promised, 0)
	}
	for _, mark := range l.marks {
		m := mark[disk]
		for len(m.ids) < sectors {
			m.ids, m.acked = append(m.ids, 0), append(m.acked, 0)
		}
		mark[disk] = m
	}
}
