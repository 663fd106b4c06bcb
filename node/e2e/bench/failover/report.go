package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// report is the page with everything that the samples say.
func report(samples []Sample) string {
	var page strings.Builder
	page.WriteString(head)
	ours := of(samples, vmctl)
	page.WriteString("\n| | n | median | p99 | max | median to ours | over HTTP | own record | work lost, median (max) |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, who := range []string{vmctl, pacemakerTuned, pacemakerDefault} {
		list := of(samples, who)
		if len(list) == 0 {
			continue
		}
		answer := values(list, func(s Sample) float64 { return s.Answer })
		lost := values(list, func(s Sample) float64 { return s.Lost })
		fmt.Fprintf(&page, "| %s | %d | %.2f | %.2f | %.2f | %.1fx | %.2f | %.2f | %.2f (%.2f) |\n", who, len(list), quantile(answer, 0.5), quantile(answer, 0.99), quantile(answer, 1),
			quantile(answer, 0.5)/quantile(values(ours, func(s Sample) float64 { return s.Answer }), 0.5),
			median(list, func(s Sample) float64 { return s.HTTP }), median(list, func(s Sample) float64 { return s.Record }), quantile(lost, 0.5), quantile(lost, 1))
	}
	page.WriteString("\nSeconds. p99 is the nearest rank: below a hundred samples that is the largest.\n")
	page.WriteString(phases(samples))
	return page.String()
}

const head = `# Failover

How long a guest is silent when its host loses power: from just before the first process is killed to the first answer
that a client outside gets over UDP (asked every 20 ms). Command: ` + "`make bench-failover`" + `; each sample is a line
of [failover.jsonl](failover.jsonl).

*vmctl*: defaults (lease 2 s), a witness, protection resume. The guest **goes on**: same memory, checked by its token.
`

// phase is one stretch of a failover.
type phase struct {
	name     string
	from, to func(Sample) float64
}

func zero(Sample) float64      { return 0 }
func decided(s Sample) float64 { return s.Decided }
func running(s Sample) float64 { return s.Running }
func fencing(s Sample) float64 { return s.Fencing }
func fenced(s Sample) float64  { return s.Fenced }
func answer(s Sample) float64  { return s.Answer }

var stretches = map[string][]phase{
	vmctl: {
		{"the window in which the lease may still run, and the witness's vote", zero, decided},
		{"replica rolled back, QEMU started, state loaded, lease claimed, running", decided, running},
		{"announced to the network, first answer", running, answer},
	},
	pacemakerDefault: pacemakers,
	pacemakerTuned:   pacemakers,
}

var pacemakers = []phase{
	{"membership lost and decided to fence", zero, fencing},
	{"power off confirmed", fencing, fenced},
	{"decided to start, libvirt starts QEMU", fenced, running},
	{"the guest boots", running, answer},
}

// phases says where the time goes.
func phases(samples []Sample) string {
	var out strings.Builder
	out.WriteString("\n## Where the time goes\n\n| | stretch | median | max |\n|---|---|---|---|\n")
	for _, who := range []string{vmctl, pacemakerTuned, pacemakerDefault} {
		list := of(samples, who)
		if len(list) == 0 {
			continue
		}
		for _, p := range stretches[who] {
			took := values(list, func(s Sample) float64 { return p.to(s) - p.from(s) })
			fmt.Fprintf(&out, "| %s | %s | %.3f | %.3f |\n", who, p.name, quantile(took, 0.5), quantile(took, 1))
		}
	}
	return out.String()
}

func of(samples []Sample, who string) (list []Sample) {
	for _, s := range samples {
		if s.Of == who {
			list = append(list, s)
		}
	}
	return list
}

func values(samples []Sample, get func(Sample) float64) (list []float64) {
	for _, s := range samples {
		list = append(list, get(s))
	}
	return list
}

func median(samples []Sample, get func(Sample) float64) float64 {
	return quantile(values(samples, get), 0.5)
}

// quantile is the nearest rank; of an even number the median is the mean of the
// two in the middle.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	if q == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[max(0, int(math.Ceil(q*float64(n)))-1)]
}
