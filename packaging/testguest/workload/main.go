package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"vmctl/packaging/testguest/work"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("workload:", err)
		os.Exit(1)
	}
}

// settings come from the kernel's command line, as guest.KEY=VALUE.
type settings struct {
	record string // address that gets a datagram a step
	rate   int    // steps a second
	memory int    // bytes of memory that the work goes over
	dirty  int    // pages rewritten a step
	every  int    // steps between two records
}

func readSettings() (settings, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return settings{}, err
	}
	s := settings{rate: 20, every: 1, memory: 16 << 20}
	perSecond := 2 << 20
	for _, word := range strings.Fields(string(line)) {
		key, value, _ := strings.Cut(strings.TrimPrefix(word, "guest."), "=")
		if !strings.HasPrefix(word, "guest.") {
			continue
		}
		var err error
		switch key {
		case "record":
			s.record = value
		case "rate":
			s.rate, err = strconv.Atoi(value)
		case "every":
			s.every, err = strconv.Atoi(value)
		case "memory":
			s.memory, err = parseBytes(value)
		case "dirty":
			perSecond, err = parseBytes(value)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", word, err)
		}
	}
	if s.rate <= 0 || s.every <= 0 || s.memory < work.PageSize {
		return s, errors.New("guest.rate and guest.every must be positive, guest.memory a page at least")
	}
	s.dirty = perSecond / s.rate / work.PageSize
	return s, nil
}

// parseBytes reads a number of bytes with an optional K or M.
func parseBytes(text string) (int, error) {
	unit := 1
	switch {
	case strings.HasSuffix(text, "K"):
		unit = 1 << 10
	case strings.HasSuffix(text, "M"):
		unit = 1 << 20
	}
	n, err := strconv.Atoi(strings.TrimRight(text, "KM"))
	return n * unit, err
}

func run() error {
	s, err := readSettings()
	if err != nil {
		return err
	}
	d := &disks{}
	failed := d.open()
	token := work.NewToken()
	worker := work.NewWorker(token, work.NewMemory(token, work.Aligned(s.memory)), s.every, d.logs)
	if failed != nil {
		worker.Fail(failed)
	}
	power := power{orders: make(chan int, 1)}
	state := &state{started: time.Now(), power: power}
	state.set(worker.Status())
	go state.serveHTTP()
	go state.serveUDP()
	go power.watchButton()
	fmt.Printf("workload: token %s, boot %d, %d disks\n", token, worker.Status().Boots, len(d.logs))
	command := steps(s, worker, state)
	d.close()
	return shutDown(command)
}

// steps works until the machine shall end, and returns how. A step that is late
// is not made up for: after a pause the counter goes on from where it stood.
func steps(s settings, worker *work.Worker, state *state) int {
	sender := dial(s.record)
	ticker := time.NewTicker(time.Second / time.Duration(s.rate))
	told := false
	for {
		select {
		case command := <-state.power.orders:
			return command
		case <-ticker.C:
		}
		worker.Step(s.dirty, s.dirty/2+1)
		status := worker.Status()
		state.set(status)
		sender.send(status)
		if status.Broken && !told {
			told = true
			fmt.Println("workload: BROKEN:", status.Reason)
		}
	}
}
