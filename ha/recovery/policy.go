package recovery

import (
	"fmt"
	"strings"
	"time"
)

// How says how a guest is started after its owner failed.
type How string

// Values of Policy.Action; a Start has one of the first two.
const (
	Resume  How = "resume"  // from the last checkpoint, by a cold boot where there is none
	Restart How = "restart" // a cold boot from the newest consistent disks
	Leave   How = "leave"   // this node owns it, an alarm is raised, and the user decides
)

// Failback says when a guest that was taken over goes back to its home.
type Failback string

// Values of Policy.Failback.
const (
	Never      Failback = "never"
	WhenSynced Failback = "when-synced"
)

// Policy is what the user asked for. Names of guests are those of the cluster.
type Policy struct {
	Action   How
	Priority int      // higher starts first
	After    []string // starts when these run, here or on the peer
	Attempts int      // starts that may fail in a row before it is given up
	Backoff  time.Duration
	Failback Failback
	Settle   time.Duration // how long all must be well before it goes home
}

// MaxBackoff bounds any wait between two attempts.
const MaxBackoff = 10 * time.Minute

// CheckOrder says why name cannot wait for after, given for whom every guest of
// the cluster waits now; "" if it can.
func CheckOrder(name string, after []string, known map[string][]string) string {
	for _, other := range after {
		if _, ok := known[other]; !ok {
			return fmt.Sprintf("recovery after %q: there is no guest of that name", other)
		}
		if path := pathTo(other, name, known, map[string]bool{}); path != nil {
			return fmt.Sprintf("recovery after %q: they would wait for each other (%s)", other,
				strings.Join(append([]string{name}, path...), " after "))
		}
	}
	return ""
}

// pathTo is a way from one guest along those that it waits for to another.
func pathTo(from, to string, after map[string][]string, seen map[string]bool) []string {
	if from == to {
		return []string{to}
	}
	if seen[from] {
		return nil
	}
	seen[from] = true
	for _, next := range after[from] {
		if path := pathTo(next, to, after, seen); path != nil {
			return append([]string{from}, path...)
		}
	}
	return nil
}
