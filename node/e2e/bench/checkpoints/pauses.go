package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"vmctl/node/e2e/bench/burdened"
	"vmctl/node/e2e/bench/samples"
	"vmctl/node/e2e/lab"
	"vmctl/vm/qmp"
)

// Guests of the bench: memory in MiB, and what they write in MB a second.
var (
	memories = []int{256, 1024}
	rates    = []int{0, 2, 50}
)

// pauses has guests write at every rate, and takes checkpoints and QEMU's own
// snapshots of them, in turns.
func (b *bench) pauses(ctx context.Context) error {
	binary, files, err := burdened.Files(ctx, b.root, b.path("guest"))
	if err != nil {
		return err
	}
	// savevm needs a disk that can hold it.
	disk := b.path("disk.qcow2")
	if err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", files.Disk, disk).Run(); err != nil {
		return err
	}
	files.Disk = disk + ",format=qcow2"
	for _, memory := range memories {
		if err := b.pausesOf(ctx, binary, files, memory); err != nil {
			return fmt.Errorf("%d MiB: %w", memory, err)
		}
	}
	return nil
}

func (b *bench) pausesOf(ctx context.Context, binary string, files lab.GuestFiles, memory int) (err error) {
	done, err := samples.Read[Sample](b.raw)
	if err != nil {
		return err
	}
	round := len(samples.Of(done, func(s Sample) bool { return s.Of == ofSavevm && s.Memory == memory && s.Rate == rates[len(rates)-1] },
		func(s Sample) float64 { return s.Pause })) / savevms
	if round >= *rounds || time.Since(b.began) > *budget {
		return nil
	}
	g, err := burdened.Start(ctx, binary, files, "--memory", fmt.Sprintf("%dM", memory))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	for ; round < *rounds && time.Since(b.began) < *budget; round++ {
		for _, rate := range rates {
			if err := b.pausesAt(ctx, g, Sample{Memory: memory, Rate: rate}); err != nil {
				return err
			}
		}
	}
	return nil
}

// savevms is how many of QEMU's snapshots are taken in a round.
const savevms = 2

func (b *bench) pausesAt(ctx context.Context, g *burdened.Guest, s Sample) error {
	words := url.Values{"rate": {strconv.Itoa(s.Rate * 1e6)}, "memory": {strconv.Itoa(s.Memory << 19)}}
	if _, err := g.Do(ctx, "/dirty", words); err != nil {
		return err
	}
	if err := g.Protect(ctx, "resume"); err != nil {
		return err
	}
	taken, err := checkpoints(ctx, g, *span)
	if err != nil {
		return err
	}
	for _, c := range taken {
		s.Of, s.Pause, s.Bytes = ofOurs, c.PauseMS, c.Bytes
		if err := b.keep(s); err != nil {
			return err
		}
	}
	if err := g.Protect(ctx, "none"); err != nil {
		return err
	}
	for range savevms {
		s.Of = ofSavevm
		if s.Pause, s.Bytes, err = savevm(ctx, g.Monitor); err != nil {
			return err
		}
		if err := b.keep(s); err != nil {
			return err
		}
	}
	fmt.Printf("%d MiB, %d MB/s: %d checkpoints, savevm %.0f ms\n", s.Memory, s.Rate, len(taken), s.Pause)
	return nil
}

// savevm takes one of QEMU's snapshots and removes it: how long the guest stood
// still, in milliseconds, and the bytes of its state.
func savevm(ctx context.Context, monitor *qmp.Client) (pause float64, size int64, err error) {
	events, cancel := monitor.Events()
	defer cancel()
	if err := human(ctx, monitor, "savevm bench"); err != nil {
		return 0, 0, err
	}
	stop, err := qmp.WaitEvent(ctx, events, qmp.Named("STOP"))
	if err != nil {
		return 0, 0, err
	}
	resume, err := qmp.WaitEvent(ctx, events, qmp.Named("RESUME"))
	if err != nil {
		return 0, 0, err
	}
	var nodes []struct {
		Image struct {
			Snapshots []struct {
				Size int64 `json:"vm-state-size"`
			}
		}
	}
	if err := monitor.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return 0, 0, err
	}
	for _, n := range nodes {
		for _, s := range n.Image.Snapshots {
			size = max(size, s.Size)
		}
	}
	return float64(resume.Time.Sub(stop.Time).Microseconds()) / 1000, size, human(ctx, monitor, "delvm bench")
}

// human runs a command of the human monitor, which says nothing when it is well.
func human(ctx context.Context, monitor *qmp.Client, line string) error {
	var said json.RawMessage
	err := monitor.Execute(ctx, "human-monitor-command", map[string]any{"command-line": line}, &said)
	if text := strings.Trim(string(said), "\""); err == nil && text != "" {
		err = fmt.Errorf("%s: %s", line, text)
	}
	return err
}
