package main

import (
	"fmt"
	"slices"
	"strings"

	"vmctl/node/e2e/bench/samples"
)

// contestants in the order of the page.
var contestants = []string{vmctl, pacemakerTuned, pacemakerDefault}

// report is the page with everything that the samples say. Peer names the
// packages that ours is compared with, if it is.
func report(all []Sample, peer string) string {
	var page strings.Builder
	page.WriteString(head)
	if peer != "" {
		fmt.Fprintf(&page, theirHead, peer)
	}
	page.WriteString("\n| power cut to the guest's answer | n | median | p99 | max | median to ours | over HTTP | own record | work in memory lost, median (max) |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	base := median(of(all, vmctl), answer)
	for _, who := range contestants {
		list := of(all, who)
		if len(list) == 0 {
			continue
		}
		all := values(list, answer)
		lost := "all of it"
		if who == vmctl {
			work := values(list, func(s Sample) float64 { return s.Lost })
			lost = fmt.Sprintf("%.2f (%.2f)", quantile(work, 0.5), quantile(work, 1))
		}
		fmt.Fprintf(&page, "| %s | %d | %.2f | %.2f | %.2f | %.1fx | %.2f | %.2f | %s |\n", who, len(list), quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1),
			quantile(all, 0.5)/base, median(list, func(s Sample) float64 { return s.HTTP }), median(list, func(s Sample) float64 { return s.Record }), lost)
	}
	runs := map[string]bool{}
	for _, s := range all {
		runs[s.Run] = true
	}
	fmt.Fprintf(&page, "\nSeconds; %d power cuts in %d invocations. p99 is the nearest rank: of a hundred samples or fewer that is the largest.\n"+
		"Other work on the machine makes all of them slower: below, the lines of the vCPU that waits say by how much.\n", len(all), len(runs))
	page.WriteString(phases(all))
	return page.String()
}

const head = `# Failover

How long a guest is silent when its host loses power: from just before the first process is killed to the first answer
that a client outside gets over UDP (asked every 20 ms). Command: ` + "`make bench-failover`" + `; each sample is a line
of [failover.jsonl](failover.jsonl). All on one machine, hosts as namespaces, guests emulated (TCG), 128 MB, one CPU.

*vmctl*: defaults (lease 2 s), a witness, protection resume, cut at a random moment between two checkpoints. The guest
**goes on** with its memory, checked by its token; never did both hosts execute it.
`

const theirHead = `
*pacemaker*: two containers with systemd, corosync (two_node) and VirtualDomain from Debian's packages (%s),
the same kernel, initramfs, memory and devices; the disk is on a directory that both share. Its guest **boots cold**: what it had in
memory is gone. Fencing is by an agent of the bench that asks a power switch over the network, which confirms "off" at once;
a real board takes seconds. Default: Debian's settings (token 3 s). Tuned: token 1 s, consensus 1.2 s. libvirtd is
kept running, and nothing delays fencing, in both. The contestants took turns; each one's idle pair stayed up in the other's turn.
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
		{"the lease may still run (2.405 s since the last renewal, which was up to 0.2 s before the cut); the witness votes", zero, decided},
		{"replica rolled back, QEMU started, state loaded, lease claimed, running", decided, running},
		{"the guest warms up (all its code is translated anew) and answers", running, answer},
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

// busy says what a machine with more processors would have saved.
var busy = []phase{
	{"in all that time the new vCPU executed", zero, func(s Sample) float64 { return s.Ran }},
	{"in all that time the new vCPU waited, ready, for a processor of the machine", zero, func(s Sample) float64 { return s.Waited }},
}

// phases says where the time goes.
func phases(all []Sample) string {
	var out strings.Builder
	out.WriteString("\n## Where the time goes\n\n| | stretch | median | max |\n|---|---|---|---|\n")
	for _, who := range contestants {
		list := of(all, who)
		if len(list) == 0 {
			continue
		}
		for _, p := range slices.Concat(stretches[who], busy) {
			took := values(list, func(s Sample) float64 { return p.to(s) - p.from(s) })
			fmt.Fprintf(&out, "| %s | %s | %.3f | %.3f |\n", who, p.name, quantile(took, 0.5), quantile(took, 1))
		}
	}
	return out.String()
}

func of(all []Sample, who string) (list []Sample) {
	for _, s := range all {
		if s.Of == who {
			list = append(list, s)
		}
	}
	return list
}

func values(list []Sample, get func(Sample) float64) (found []float64) {
	for _, s := range list {
		found = append(found, get(s))
	}
	return found
}

func median(list []Sample, get func(Sample) float64) float64 {
	return quantile(values(list, get), 0.5)
}

var quantile = samples.Quantile
