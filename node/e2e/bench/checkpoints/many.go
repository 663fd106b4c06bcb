package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/bench/burdened"
	"vmctl/node/e2e/lab"
)

// checkpoints are those that are committed in so long a time, of the guest.
func checkpoints(ctx context.Context, g *burdened.Guest, span time.Duration) ([]api.Checkpoint, error) {
	seen, err := committed(ctx, g.A, span)
	return seen[lab.GuestName], err
}

// pollEvery is short against the interval of checkpoints, so that none is passed
// over, and no shorter: the answer takes a word with every guest's QEMU.
const pollEvery = 200 * time.Millisecond

// committed are the checkpoints of each of a host's guests that are committed
// in so long a time. What was there before is left out.
func committed(ctx context.Context, h *lab.Host, span time.Duration) (map[string][]api.Checkpoint, error) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	seen := map[string][]api.Checkpoint{}
	last := map[string]uint64{}
	for began := time.Now(); time.Since(began) < span; {
		guests, err := h.API().VMs(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range guests {
			if v.Checkpoint == nil || v.Checkpoint.Sequence == last[v.Name] {
				continue
			}
			if last[v.Name] != 0 {
				seen[v.Name] = append(seen[v.Name], *v.Checkpoint)
			}
			last[v.Name] = v.Checkpoint.Sequence
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return seen, nil
}

// guests is how many share a pair.
const guests = 8

// used is the time that this machine's processors have been at work, in seconds
// of one processor: ours and everybody else's.
func used() float64 {
	var user, nice, system, idle, wait, irq, soft, steal float64
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscanf(string(data), "cpu %f %f %f %f %f %f %f %f", &user, &nice, &system, &idle, &wait, &irq, &soft, &steal); err != nil {
		return 0
	}
	return (user + nice + system + irq + soft + steal) / 100 // USER_HZ
}

// many protects small guests at once and looks at their intervals.
func (b *bench) many(ctx context.Context) (err error) {
	binary, files, err := lab.Build(ctx, b.root, filepath.Join(b.root, "dist"))
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, binary, func(string, ...any) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Form(ctx); err != nil {
		return err
	}
	if err := bootAll(ctx, l.A, files); err != nil {
		return err
	}
	time.Sleep(settle)
	from, before := time.Now(), used()
	seen, err := committed(ctx, l.A, *watch)
	if err != nil {
		return err
	}
	processors := (used() - before) / time.Since(from).Seconds()
	for i := range guests {
		s := intervals(seen[fmt.Sprintf("g%d", i)], from, from.Add(*watch))
		s.Of, s.Guest, s.Busy, s.Processors = ofMany, fmt.Sprintf("g%d", i), *busy, processors
		if err := b.keep(s); err != nil {
			return err
		}
	}
	return nil
}

// bootAll brings up the guests, one after the other, for the machine is small, and
// waits until all of them are through with booting and protected.
func bootAll(ctx context.Context, h *lab.Host, files lab.GuestFiles) error {
	for i := range guests {
		create := h.CreateQuiet
		if *busy {
			create = h.CreateBeside
		}
		v, err := create(ctx, fmt.Sprintf("g%d", i), files, "--protection", "resume")
		if err != nil {
			return err
		}
		if err := lab.Eventually(ctx, time.Minute, func() error { return h.Booted(v.UUID) }); err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	return lab.Eventually(ctx, 2*time.Minute, func() error { return protected(ctx, h) })
}

// settle is how long the guests have been protected before they are watched.
const settle = 5 * time.Second

// protected says whether all guests of a host are.
func protected(ctx context.Context, h *lab.Host) error {
	list, err := h.API().VMs(ctx)
	if err != nil {
		return err
	}
	for _, v := range list {
		if err := errors.Join(lab.Synced(v), lab.Covered(v)); err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	return nil
}

// wanted is the interval between checkpoints that a guest has by default, in seconds.
const wanted = 0.5

// intervals says how well one guest's checkpoints have kept their time between
// two moments. A checkpoint that comes after two intervals has missed one, after
// three two; the ends count like checkpoints.
func intervals(list []api.Checkpoint, from, to time.Time) Sample {
	slices.SortFunc(list, func(x, y api.Checkpoint) int { return int(int64(x.Sequence) - int64(y.Sequence)) })
	var pauses, apart []float64
	s := Sample{Taken: len(list)}
	last := from
	next := func(at time.Time) float64 {
		gap := at.Sub(last).Seconds()
		last = at
		s.Longest = max(s.Longest, gap)
		s.Missed += max(0, int(gap/wanted)-1)
		return gap
	}
	for i, c := range list {
		pauses = append(pauses, c.PauseMS)
		if gap := next(c.Time.Time); i > 0 {
			apart = append(apart, gap)
		}
	}
	next(to)
	s.Pause, s.Interval = middle(pauses), middle(apart)
	return s
}
