package main

import (
	"fmt"
	"strings"
	"time"

	"vmctl/node/e2e/bench/samples"
)

// Sample is one power cut. Times are milliseconds.
type Sample struct {
	Run     string    `json:"run"` // the invocation that made it
	Round   int       `json:"round"`
	Time    time.Time `json:"time"`
	Standby bool      `json:"standby"`
	Lease   float64   `json:"lease"`   // from the cut until the lease has ended and the vote is in
	Running float64   `json:"running"` // from there until the guest was let run
	Output  float64   `json:"output"`  // from there until its first datagram
}

const head = `# Takeover

How long a guest takes from the end of its lease (the other host has the witness's vote and is the owner) to its first datagram from
there. In a QEMU that waited (*standby: true*, the default), or in one that is started for it (*standby: false*): nothing else differs,
the two take turns on one guest. Command: ` + "`make bench-takeover`" + `; each sample is a line of [takeover.jsonl](takeover.jsonl). All on one
machine with two processors, hosts as namespaces, a Linux guest (TCG, 128 MB, one CPU) that sends %d datagrams a second. Milliseconds.

| | n | lease's end to the first output: median | p90 | longest | of it until it was let run: median | longest | after that, until the output: median |
|---|---|---|---|---|---|---|---|
`

// report is the page with everything that the samples say.
func report(all []Sample) string {
	var page strings.Builder
	fmt.Fprintf(&page, head, rate)
	for _, standby := range []bool{true, false} {
		pick := func(value func(Sample) float64) []float64 {
			return samples.Of(all, func(s Sample) bool { return s.Standby == standby }, value)
		}
		output, running := pick(func(s Sample) float64 { return s.Output }), pick(func(s Sample) float64 { return s.Running })
		if len(output) == 0 {
			continue
		}
		fmt.Fprintf(&page, "| %s | %d | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f |\n", map[bool]string{true: "a QEMU waited", false: "started for it"}[standby],
			len(output), samples.Median(output), samples.Quantile(output, 0.9), samples.Quantile(output, 1),
			samples.Median(running), samples.Quantile(running, 1), samples.Median(pick(func(s Sample) float64 { return s.Output - s.Running })))
	}
	fmt.Fprintf(&page, "\nFrom the power cut to the lease's end, with both: median %.0f, longest %.0f.\n",
		samples.Median(samples.Of(all, func(Sample) bool { return true }, lease)), samples.Quantile(samples.Of(all, func(Sample) bool { return true }, lease), 1))
	return page.String()
}

func lease(s Sample) float64 { return s.Lease }
