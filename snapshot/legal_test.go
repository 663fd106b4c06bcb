package snapshot

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
)

// story is what one writer wrote, in its order: it waits for each write before the
// next. Times are ticks of the ledger; done 0: not acknowledged yet.
type story []*told

type told struct {
	ledgerWrite
	begun, done int
}

// tell notes a write of a writer that has begun.
func (l *ledger) tell(writer int, w ledgerWrite) *told {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stories == nil {
		l.stories = map[int]story{}
	}
	l.tick++
	t := &told{ledgerWrite: w, begun: l.tick}
	l.stories[writer] = append(l.stories[writer], t)
	return t
}

func (l *ledger) told(t *told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick++
	t.done = l.tick
}

// legal says whether the images are what the guest's disks may have been at one
// moment: of every writer all writes up to one of them, the next one in part at
// most, and none that was begun after one was acknowledged that is missing.
func (l *ledger) legal(images []DiskImage) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	content := map[string][]uint64{}
	for _, image := range images {
		raw, err := os.ReadFile(image.Path)
		if err != nil {
			return err
		}
		for at := 0; at < len(raw); at += sector {
			content[image.Name] = append(content[image.Name], binary.LittleEndian.Uint64(raw[at:]))
		}
	}
	var moments [][]int // for each writer, how many of its writes may be there
	var stories []story
	for writer, s := range l.stories {
		may := s.moments(content)
		if len(may) == 0 {
			return fmt.Errorf("what writer %d wrote (%d writes) is of no moment", writer, len(s))
		}
		moments, stories = append(moments, may), append(stories, s)
	}
	if !together(stories, moments, nil) {
		return fmt.Errorf("what the writers wrote is of different moments: %v", moments)
	}
	return nil
}

// moments are the numbers of writes after which the disks may have been that.
func (s story) moments(content map[string][]uint64) (may []int) {
	type place struct {
		disk string
		at   int
	}
	wrong := map[place]bool{} // where the model differs
	model := map[place]uint64{}
	for _, w := range s {
		for at := w.first; at < w.first+w.count; at++ {
			if p := (place{w.disk, at}); content[w.disk][at] != 0 {
				wrong[p] = true
			}
		}
	}
	for k := 0; ; k++ {
		explained := 0
		if k < len(s) {
			for at := s[k].first; at < s[k].first+s[k].count; at++ {
				if wrong[place{s[k].disk, at}] && content[s[k].disk][at] == s[k].id {
					explained++
				}
			}
		}
		if len(wrong) == explained {
			may = append(may, k)
		}
		if k == len(s) {
			return may
		}
		for at := s[k].first; at < s[k].first+s[k].count; at++ {
			p := place{s[k].disk, at}
			if model[p] = s[k].id; content[p.disk][p.at] != model[p] {
				wrong[p] = true
			} else {
				delete(wrong, p)
			}
		}
	}
}

// together says whether one of the moments of each can have been the same.
func together(stories []story, moments [][]int, chosen []int) bool {
	n := len(chosen)
	if n == len(stories) {
		newest, missing := 0, 1<<62
		for i, s := range stories {
			if chosen[i] > 0 {
				newest = max(newest, s[chosen[i]-1].begun)
			}
			if chosen[i] < len(s) && s[chosen[i]].done != 0 {
				missing = min(missing, s[chosen[i]].done)
			}
		}
		return newest < missing
	}
	return slices.ContainsFunc(moments[n], func(k int) bool { return together(stories, moments, append(chosen[:n:n], k)) })
}
