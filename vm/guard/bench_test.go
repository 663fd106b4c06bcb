package guard

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkFreeze measures how long a busy guest (more threads than the machine
// has cores) ticks on after its deadline. Run it with -benchtime=80x.
func BenchmarkFreeze(b *testing.B) {
	guest := startBench(b, "FAKE_GAP_US=0")
	guest.untilTicks()
	var late, sent []float64
	for b.Loop() {
		// From Forever, so that the deadline can be set to an earlier time.
		guest.renew(Forever)
		deadline := soon(50 * time.Millisecond)
		guest.renew(deadline)
		guest.untilStopped()
		late = append(late, float64(guest.board.lastTick()-deadline)/1e3)
		sent = append(sent, float64(guest.status().FreezeNS)/1e3)
	}
	slices.Sort(late)
	slices.Sort(sent)
	b.ReportMetric(late[len(late)/2], "µs-last-tick-median")
	b.ReportMetric(late[len(late)-1], "µs-last-tick-max")
	b.ReportMetric(sent[len(sent)/2], "µs-stop-sent-median")
	b.ReportMetric(sent[len(sent)-1], "µs-stop-sent-max")
}

// BenchmarkRenew measures one renewal, agent to guard and back.
func BenchmarkRenew(b *testing.B) {
	guest := startBench(b)
	for b.Loop() {
		guest.renew(soon(time.Minute))
	}
}
