package qmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	// maxState bounds a device state, in bytes. A usual one has 130 KB; one with
	// video memory 20 MB.
	maxState = 256 << 20
	// loadPoll is how often the end of a load is looked for. QEMU sends no event
	// for it by default.
	loadPoll = time.Millisecond

	incomingName = "vmctl-incoming"
)

// LoadDeviceState loads a saved state into a QEMU started with the same options
// and "-incoming defer -S", and returns once it can be continued (Cont). The whole
// of blob is read before QEMU is touched.
//
// When QEMU cannot load the state, it is of no further use: QEMU 7.2 ends
// (ErrClosed), newer ones may stay in the state "inmigrate".
func LoadDeviceState(ctx context.Context, c FileExecutor, blob io.Reader) error {
	state, err := io.ReadAll(io.LimitReader(blob, maxState+1))
	switch {
	case err != nil:
		return fmt.Errorf("qmp: read the device state to load: %w", err)
	case len(state) > maxState:
		return fmt.Errorf("qmp: the device state is larger than %d MiB: %w", maxState>>20, ErrNotState)
	}
	if err := checkState(state); err != nil {
		return fmt.Errorf("qmp: the device state to load: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("qmp: pipe for the device state: %w", err)
	}
	defer r.Close()

	// The feeder must not outlive this call. Closing the pipe's end unblocks it.
	fed := make(chan error, 1)
	go func() {
		_, err := w.Write(state)
		_ = w.Close()
		fed <- err
	}()
	err = load(ctx, c, r)
	_, _ = r.Close(), w.Close()
	if feedErr := <-fed; err == nil && feedErr != nil {
		// QEMU reads to the end of the state, not of the pipe: bytes left
		// over were no part of it.
		err = fmt.Errorf("qmp: QEMU did not take the whole device state: %w", feedErr)
	}
	return err
}

func load(ctx context.Context, c FileExecutor, r *os.File) error {
	name := struct {
		Name string `json:"fdname"`
	}{incomingName}
	if err := c.ExecuteWithFile(ctx, "getfd", name, nil, r); err != nil {
		return err
	}
	err := c.Execute(ctx, "migrate-incoming", struct {
		URI string `json:"uri"`
	}{"fd:" + incomingName}, nil)
	if err != nil {
		_ = c.Execute(ctx, "closefd", name, nil)
		return loadError(err)
	}
	tick := time.NewTicker(loadPoll)
	defer tick.Stop()
	for {
		done, err := loaded(ctx, c)
		if done || err != nil {
			return loadError(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("qmp: QEMU was still loading the device state: %w", ctx.Err())
		}
	}
}

// loaded looks whether the load is over, and asks for the reason if it failed.
func loaded(ctx context.Context, c Executor) (bool, error) {
	status, err := QueryStatus(ctx, c)
	if err != nil {
		return false, err
	}
	switch status.Status {
	case StatePaused, StateRunning:
		return true, nil
	case StateInMigrate:
	default:
		return false, fmt.Errorf("QEMU is in the state %q instead", status.Status)
	}
	var migration struct {
		Status string `json:"status"`
		Error  string `json:"error-desc"`
	}
	if err := c.Execute(ctx, "query-migrate", nil, &migration); err != nil {
		return false, err
	}
	if migration.Status == "failed" {
		return false, fmt.Errorf("QEMU could not load it: %s", migration.Error)
	}
	return false, nil
}

func loadError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrClosed):
		return fmt.Errorf("qmp: QEMU ended while it loaded the device state; its standard error says why, "+
			"most often different options on the two hosts: %w", err)
	}
	return fmt.Errorf("qmp: load the device state: %w", err)
}
