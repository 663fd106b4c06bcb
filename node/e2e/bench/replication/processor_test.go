package main

import (
	"os"
	"testing"
	"time"
)

func TestProcessorOfAProcess(t *testing.T) {
	mine := []process{{"this", os.Getpid()}, {"init", 1}}
	before, err := processorOf(mine)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
		sum++
	}
	after, err := processorOf(mine)
	if err != nil {
		t.Fatal(err)
	}
	parts, all := after.since(before)
	if parts[0] < 5*time.Millisecond || parts[0] > 10*time.Second || all < parts[0] || all != parts[0]+parts[1] {
		t.Errorf("%v of %v after 50 ms of counting to %d", parts, all, sum)
	}
	if _, err := processorOf([]process{{"nobody", 1 << 22}}); err == nil {
		t.Error("a process that does not exist has a processor time")
	}
	if text := after.text([]time.Duration{3 * time.Millisecond, time.Microsecond}, 10); text != "this 300, init 0" {
		t.Errorf("told as %q", text)
	}
}
