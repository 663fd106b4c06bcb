package main

import (
	"fmt"
	"time"
)

// ethernet is what the loopback counts for a link-level header, which TCP/IP
// does not have.
const ethernet = 14

func (f figures) perPair() float64 {
	bytes := f.after.bytes - f.before.bytes - ethernet*(f.after.packets-f.before.packets)
	return float64(bytes) / f.span.Seconds() / float64(f.pairs)
}

func (f figures) row() string {
	perSecond := 1 / f.span.Seconds() / float64(f.pairs)
	return fmt.Sprintf("| %d | %.1f | %.1f | %.1f | %.1f | %.2f | %.0f | %.1f | %.1f | %.2f | %.2f | %.1f | %d of %d | %.1f |\n",
		f.pairs, mb(f.after.rss), mb(f.after.most), mb(f.after.anon), mb(f.after.file),
		100*float64(f.after.cpu-f.before.cpu)/float64(f.span), f.perPair(),
		float64(f.after.packets-f.before.packets)*perSecond, float64(f.sent)*perSecond,
		ms(percentile(f.took, 0.5)), ms(percentile(f.took, 0.99)), ms(percentile(f.took, 1)), f.sent-len(f.took), f.sent, mb(f.porter))
}

// String is the row for a terminal.
func (f figures) String() string {
	return "| pairs | RSS | most | anon | file | % CPU | B/s/pair | pkt/s/pair | hb/s/pair | p50 ms | p99 ms | max ms | unanswered | porter |\n" + f.row()
}

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func heading() string {
	return fmt.Sprintf(`# Witness

One witness process serves N pairs: two nodes each, %d guests, an identity a node, real lease links. The first %d pairs have real lease
cores; the others repeat what a calm core says, as often. It is watched for %s, after every link stood for %s. Command: `+"`make bench-witness`"+`.

| pairs | MB resident | at most | of the first anonymous | of it file | %% of one core | bytes/s a pair | packets/s a pair | heartbeats/s a pair | answer ms, median | p99 | longest | unanswered | MB of handshakes |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`, *guests, *cores, *window, settle)
}

const notes = `
Goals: < 10 MB resident with 1,000 pairs, < 1,000 bytes/s a pair.

Resident is VmRSS of /proc/PID/status at the end of the watch: everything of the process, anonymous pages (RssAnon) and pages of files
(RssFile); at most is VmHWM, counted anew from the beginning of the watch. Bytes are both directions together as the loopback of a namespace of their own counts
them, less its 14 bytes of link header a packet: TCP/IP headers, TLS and payload, acknowledgements of TCP included. An answer's time
is from the core's Send to the delivery of its acknowledgement, in the load's process: the load and the witness share this machine.
"-1 of 100" unanswered: one more answer came during the watch than heartbeats were sent. MB of handshakes is the most that the process for
handshakes had resident, as seen when the last link stood; during the watch there is none, or the measurement fails.
`
