package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/packaging/testguest/work"
)

// memorySize is how much memory the work goes over, in bytes.
const memorySize = 16 << 20

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
	dirty  int    // pages rewritten a step
	every  int    // steps between two records
}

func readSettings() (settings, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return settings{}, err
	}
	s := settings{rate: 20, every: 1}
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
		case "dirty":
			perSecond, err = parseBytes(value)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", word, err)
		}
	}
	if s.rate <= 0 || s.every <= 0 {
		return s, errors.New("guest.rate and guest.every must be positive")
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
	logs, failed := openLogs()
	token := work.NewToken()
	worker := work.NewWorker(token, work.NewMemory(token, work.Aligned(memorySize)), s.every, logs)
	if failed != nil {
		worker.Fail(failed)
	}
	state := &state{started: time.Now()}
	state.set(worker.Status())
	go state.serveHTTP()
	go state.serveUDP()
	go watchPowerButton()
	fmt.Printf("workload: token %s, boot %d, %d disks\n", token, worker.Status().Boots, len(logs))
	return steps(s, worker, state)
}

// steps works for ever. A step that is late is not made up for: after a pause
// the counter goes on from where it stood.
func steps(s settings, worker *work.Worker, state *state) error {
	sender := dial(s.record)
	ticker := time.NewTicker(time.Second / time.Duration(s.rate))
	told := false
	for range ticker.C {
		worker.Step(s.dirty, s.dirty/2+1)
		status := worker.Status()
		state.set(status)
		sender.send(status)
		if status.Broken && !told {
			told = true
			fmt.Println("workload: BROKEN:", status.Reason)
		}
	}
	return nil
}

// openLogs opens the logs on the disks there are: a file on the first, the
// second as it is.
func openLogs() (logs []*work.Log, err error) {
	if path := "/data/log"; exists("/data/lost+found") {
		log, err := openLog("vda", path, true)
		if err != nil {
			return nil, err
		}
		logs = append(logs, log)
	}
	if path := "/dev/vdb"; exists(path) {
		log, err := openLog("vdb", path, false)
		if err != nil {
			return logs, err
		}
		logs = append(logs, log)
	}
	return logs, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openLog opens a log past the page cache, so that each record is on the disk
// when its write returns, and each read comes from there.
func openLog(name, path string, create bool) (*work.Log, error) {
	if create && !exists(path) {
		if err := fillZero(path); err != nil {
			return nil, fmt.Errorf("%s: make the log: %w", name, err)
		}
	}
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	log, history, err := work.OpenLog(name, file, work.LogSlots, work.Aligned(work.PageSize))
	if err == nil {
		fmt.Printf("workload: %s holds %d records\n", name, history.Records)
	}
	return log, err
}

// fillZero makes the log's file whole under another name first: a crash leaves
// none, not half of one.
func fillZero(path string) error {
	if err := os.WriteFile(path+".new", make([]byte, work.LogSize), 0o644); err != nil {
		return err
	}
	file, err := os.Open(path + ".new")
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close(), os.Rename(path+".new", path)); err != nil {
		return err
	}
	dir, err := os.Open("/data")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
