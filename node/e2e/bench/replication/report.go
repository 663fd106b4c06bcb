package main

import (
	"fmt"
	"slices"
	"strings"

	"vmctl/node/e2e/bench/samples"
)

// report is the page with everything that the samples say.
func report(all []Sample) string {
	var page strings.Builder
	page.WriteString(head)
	for _, p := range []struct {
		name, title, text string
		loads             []load
		arms              []string
	}{
		{partBlocks, "Below the guest", blocksText, blockLoads, append(slices.Clone(blockArms), armOther)},
		{partGuest, "In a guest", guestText, guestLoads, guestArms},
	} {
		list := only(all, func(s Sample) bool { return s.Part == p.name })
		if len(list) == 0 {
			continue
		}
		fmt.Fprintf(&page, "\n## %s\n\n%s\n| load | written | n | a second | MB/s | median, us | p99, us | processor, us | times as long as not replicated | as QEMU's mirror |\n|---|---|---|---|---|---|---|---|---|---|\n", p.title, p.text)
		for _, l := range p.loads {
			for _, arm := range p.arms {
				page.WriteString(row(list, l, arm))
			}
		}
	}
	page.WriteString(goals(all))
	return page.String()
}

// row is one load with one way of replicating; what it is compared with is of
// the same round.
func row(list []Sample, l load, arm string) string {
	mine := only(list, func(s Sample) bool { return s.Load == l.name && s.Arm == arm })
	if len(mine) == 0 {
		return ""
	}
	rate := medianOf(mine, result.rate)
	megabytes := "-"
	if l.size > 0 {
		megabytes = fmt.Sprintf("%.1f", rate*float64(l.size)/1e6)
	}
	return fmt.Sprintf("| %s | %s | %d | %.0f | %s | %.0f | %.0f | %s | %.2f | %.2f |\n", l.name, arm, len(mine), rate, megabytes,
		medianOf(mine, func(r result) float64 { return r.Median }), medianOf(mine, func(r result) float64 { return r.P99 }),
		processorOfOne(mine), longer(list, l, arm, armNone), longer(list, l, arm, armStock))
}

// processorOfOne is the processor time of one operation, as far as samples have it.
func processorOfOne(mine []Sample) string {
	known := only(mine, func(s Sample) bool { return s.CPU > 0 })
	if len(known) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", medianOf(known, func(r result) float64 { return r.CPU }))
}

// longer is how many times as long a write takes as it does another way: the
// median over the rounds.
func longer(list []Sample, l load, arm, than string) float64 {
	rates := map[string]map[string]float64{} // by round and arm
	for _, s := range list {
		if s.Load != l.name {
			continue
		}
		key := fmt.Sprint(s.Run, s.Round)
		if rates[key] == nil {
			rates[key] = map[string]float64{}
		}
		rates[key][s.Arm] = s.rate()
	}
	var ratios []float64
	for _, r := range rates {
		if r[arm] > 0 && r[than] > 0 {
			ratios = append(ratios, r[than]/r[arm])
		}
	}
	return samples.Median(ratios)
}

func only(all []Sample, wanted func(Sample) bool) []Sample {
	return slices.DeleteFunc(slices.Clone(all), func(s Sample) bool { return !wanted(s) })
}

func medianOf(list []Sample, value func(result) float64) float64 {
	return samples.Median(samples.Of(list, func(Sample) bool { return true }, func(s Sample) float64 { return value(s.result) }))
}

// bound is how much longer than two writes a large replicated one may take.
const bound = 1.3

// goals says which are met.
func goals(all []Sample) string {
	list := only(all, func(s Sample) bool { return s.Part == partBlocks })
	if len(list) == 0 {
		return ""
	}
	var out strings.Builder
	out.WriteString("\n## Goals\n\nBelow the guest. A write that goes to two disks takes at least as long as two.\n\n| goal | measured | |\n|---|---|---|\n")
	line := func(goal string, value, limit float64) {
		verdict := "met"
		if !(value <= limit) {
			verdict = "**missed**"
		}
		fmt.Fprintf(&out, "| %s | %.2f | %s |\n", goal, value, verdict)
	}
	for _, l := range []load{random1, random16} {
		line("ours takes no longer than QEMU's mirror, "+l.name, longer(list, l, armOurs, armStock), 1)
	}
	for _, l := range []load{sequential, deep} {
		line(fmt.Sprintf("ours takes at most %.1f times as long as two writes, %s", bound, l.name), longer(list, l, armOurs, armNone)/2, bound)
		line(fmt.Sprintf("ours takes at most %.1f times as long as writing twice here, %s", bound, l.name), longer(list, l, armOurs, armTwice), bound)
	}
	return out.String()
}
