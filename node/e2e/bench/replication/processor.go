package main

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one whose processor time a load costs.
type process struct {
	name string
	pid  int
}

// processor is the processor time that processes have had so far.
type processor struct {
	of   []process
	used []time.Duration
}

func processorOf(all []process) (processor, error) {
	p := processor{of: all, used: make([]time.Duration, len(all))}
	for i, one := range all {
		var spec unix.Timespec
		if err := unix.ClockGettime(clockOf(one.pid), &spec); err != nil {
			return processor{}, fmt.Errorf("read the processor time of process %d (%s): %w", one.pid, one.name, err)
		}
		p.used[i] = time.Duration(spec.Nano())
	}
	return p, nil
}

// clockOf is a process's clock of processor time, as clock_getcpuclockid makes it.
func clockOf(pid int) int32 { return int32(^pid<<3 | 2) }

// since is how much each had since before.
func (p processor) since(before processor) (parts []time.Duration, all time.Duration) {
	for i, used := range p.used {
		parts = append(parts, used-before.used[i])
		all += used - before.used[i]
	}
	return parts, all
}

// text tells the parts, for one of so many operations.
func (p processor) text(parts []time.Duration, ops int) string {
	var words []string
	for i, part := range parts {
		words = append(words, fmt.Sprintf("%s %d", p.of[i].name, int(part.Microseconds())/max(ops, 1)))
	}
	return strings.Join(words, ", ")
}
