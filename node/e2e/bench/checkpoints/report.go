package main

import (
	"fmt"
	"slices"
	"strings"

	"vmctl/node/e2e/bench/samples"
)

// middle is the median, 0 of nothing.
func middle(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	return samples.Median(list)
}

// report is the page with everything that the samples say.
func report(all []Sample) string {
	return head + pauseTable(all) + finderTable(all) + copyTable(all) + manyTable(all)
}

const head = `# Checkpoints

Everything on one machine with two processors, hosts as namespaces, guests emulated (TCG), one CPU. Command: ` + "`make bench-checkpoints`" + `;
each sample is a line of [checkpoints.jsonl](checkpoints.jsonl); what is to be known of them is in [checkpoints-notes.md](checkpoints-notes.md).
`

const pauseHead = `
## Pause and bytes

A Linux guest rewrites whole pages (half of each random) all over half of its memory, at the default interval (0.5 s) and budget
(a twentieth of the time), beside savevm of the same guest into its qcow2 disk, in turns. The pause is from the guard's permission to the
guest running again; bytes of a checkpoint are those on the link. Which pages changed is found by comparing: this kernel has no
soft-dirty bits.

| memory | guest writes | n | pause ms, median | p99 | longest | bytes, median | savevm: n | pause ms, median | longest | bytes | savevm's pause to ours |
|---|---|---|---|---|---|---|---|---|---|---|---|
`

func pauseTable(all []Sample) string {
	var out strings.Builder
	for _, memory := range memories {
		for _, rate := range rates {
			pick := func(of string, value func(Sample) float64) []float64 {
				return samples.Of(all, func(s Sample) bool { return s.Of == of && s.Memory == memory && s.Rate == rate }, value)
			}
			ours, theirs := pick(ofOurs, pause), pick(ofSavevm, pause)
			if len(ours) == 0 {
				continue
			}
			fmt.Fprintf(&out, "| %d MiB | %d MB/s | %d | %.1f | %.1f | %.1f | %.2f MB | %d | %.0f | %.0f | %.0f MB | %.0fx |\n", memory, rate,
				len(ours), samples.Median(ours), samples.Quantile(ours, 0.99), slices.Max(ours), middle(pick(ofOurs, volume))/1e6,
				len(theirs), middle(theirs), samples.Quantile(theirs, 1), middle(pick(ofSavevm, volume))/1e6, middle(theirs)/samples.Median(ours))
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return pauseHead + out.String()
}

func pause(s Sample) float64  { return s.Pause }
func volume(s Sample) float64 { return float64(s.Bytes) }

const finderHead = `
## Comparing against soft-dirty bits

What a pause does with the memory of a process that wrote for half a second, both ways in turns on the same memory: in a guest with
Debian's kernel, for the kernel here has no such bits. The guest is emulated (TCG, two CPUs), so that the times are many times those of a
processor; what can be taken from them is how the two compare. A whole protected guest in there (QEMU in QEMU) is too slow to say
anything about pauses.

| memory | written | by comparing, ms | by soft-dirty bits, ms | soft-dirty of comparing |
|---|---|---|---|---|
`

func finderTable(all []Sample) string {
	var out strings.Builder
	for _, memory := range memories {
		for _, rate := range rates {
			pick := func(of string) []float64 {
				return samples.Of(all, func(s Sample) bool { return s.Of == of && s.Memory == memory && s.Rate == rate }, pause)
			}
			if compare, bits := middle(pick(ofCompare)), middle(pick(ofSoftDirty)); compare > 0 {
				fmt.Fprintf(&out, "| %d MiB | %d MB/s | %.1f | %.1f | %.0f %% |\n", memory, rate, compare, bits, 100*bits/compare)
			}
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return finderHead + out.String()
}

const copyHead = `
## Memory copied in the pause

256 MiB, a quarter of the pages changed (all in the last two rows), beside a plain copy of as many bytes in one piece and one of just those
pages, with as many threads, in turns (` + "`BenchmarkPause`" + `). Rows of 1: pages one by one at random; of 64: runs of 64 pages. Goal: at least
80 % of the plain copy, where the pages are known; where they are not, everything is read to compare it.

| changed pages | known which | GB/s in the pause | GB/s plain copy | share | share of copying just those pages |
|---|---|---|---|---|---|
`

func copyTable(all []Sample) string {
	var out strings.Builder
	var cases []string
	for _, s := range all {
		if s.Of == ofCopy && !slices.Contains(cases, s.Case) {
			cases = append(cases, s.Case)
		}
	}
	for _, c := range cases {
		pick := func(value func(Sample) float64) float64 {
			return samples.Median(samples.Of(all, func(s Sample) bool { return s.Of == ofCopy && s.Case == c }, value))
		}
		var rows int
		known := "no"
		if _, err := fmt.Sscanf(c, "rows=%d", &rows); err == nil && strings.HasSuffix(c, "known=true") {
			known = "yes"
		}
		copied, plain := pick(func(s Sample) float64 { return s.Copied }), pick(func(s Sample) float64 { return s.Memcpy })
		share := pick(func(s Sample) float64 { return s.Copied / s.Memcpy })
		pages := pick(func(s Sample) float64 { return s.Copied / s.Pages })
		fmt.Fprintf(&out, "| in rows of %d | %s | %.2f | %.2f | %.0f %% | %.0f %% |\n", rows, known, copied, plain, 100*share, 100*pages)
	}
	if out.Len() == 0 {
		return ""
	}
	return copyHead + out.String()
}

const manyHead = `
## Eight protected guests on one pair

128 MiB each, protection resume at the default interval and budget. All of them, both agents, the witness, both replicas and a standby
for each share two processors, and are watched once all have booted and are in sync. A checkpoint that comes after two intervals (1 s)
has missed one, after three two; the ends of the watch count like checkpoints.
`

// manyTable has a table for guests that are quiet, and one for guests at work.
func manyTable(all []Sample) string {
	list := slices.DeleteFunc(slices.Clone(all), func(s Sample) bool { return s.Of != ofMany })
	if len(list) == 0 {
		return ""
	}
	slices.SortStableFunc(list, func(x, y Sample) int { return strings.Compare(x.Guest, y.Guest) })
	out := manyHead
	for _, busy := range []bool{false, true} {
		out += manyRows(slices.DeleteFunc(slices.Clone(list), func(s Sample) bool { return s.Busy != busy }), busy)
	}
	return out
}

func manyRows(list []Sample, busy bool) string {
	if len(list) == 0 {
		return ""
	}
	var out strings.Builder
	out.WriteString("\nQuiet guests: one step of work a second, which rewrites 64 KiB of memory and a block of the disk.\n")
	if busy {
		out.Reset()
		out.WriteString("\nGuests at work: each rewrites and checks memory (2 MB a second) and writes to its disk, 20 times a second.\n")
	}
	out.WriteString("\n| guest | checkpoints | interval, median, s | longest, s | missed | pause ms, median | processors in use, of 2 |\n|---|---|---|---|---|---|---|\n")
	taken, missed := 0, 0
	for _, s := range list {
		fmt.Fprintf(&out, "| %s | %d | %.2f | %.2f | %d | %.1f | %.2f |\n", s.Guest, s.Taken, s.Interval, s.Longest, s.Missed, s.Pause, s.Processors)
		taken, missed = taken+s.Taken, missed+s.Missed
	}
	return out.String() + fmt.Sprintf("\nGoal: none missed. Checkpoints: %d; intervals missed: %d.\n", taken, missed)
}
