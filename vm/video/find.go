package video

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"vmctl/vm/qmp"
)

// ErrHidden: the guest does not map its screen's memory now, as before its
// firmware has run. QEMU tells nobody where it is then.
var ErrHidden = errors.New("the guest has not mapped its screen's memory")

var answerForm = regexp.MustCompile(`^Host virtual address for 0x[0-9a-f]+ \(vga\.vram\) is 0x([0-9a-f]+)`)

// find asks QEMU where in its process a VGA's memory is. That does not change as
// long as the process lives.
func find(ctx context.Context, c qmp.Executor, device string, size int64) (uint64, error) {
	var buses []struct {
		Devices []struct {
			ID      string `json:"qdev_id"`
			Regions []struct {
				BAR     int   `json:"bar"`
				Address int64 `json:"address"`
				Size    int64 `json:"size"`
			} `json:"regions"`
		} `json:"devices"`
	}
	if err := c.Execute(ctx, "query-pci", nil, &buses); err != nil {
		return 0, fmt.Errorf("find the screen's memory: %w", err)
	}
	for _, bus := range buses {
		for _, d := range bus.Devices {
			for _, r := range d.Regions {
				if d.ID == device && r.BAR == 0 && r.Size == size && r.Address > 0 {
					return translate(ctx, c, r.Address)
				}
			}
		}
	}
	return 0, fmt.Errorf("find the screen's memory: %w", ErrHidden)
}

// translate makes an address of the guest one of QEMU's process.
func translate(ctx context.Context, c qmp.Executor, address int64) (uint64, error) {
	var said string
	err := c.Execute(ctx, "human-monitor-command", map[string]any{"command-line": fmt.Sprintf("gpa2hva 0x%x", address)}, &said)
	if err != nil {
		return 0, fmt.Errorf("find the screen's memory: %w", err)
	}
	words := answerForm.FindStringSubmatch(said)
	if words == nil { // the guest has moved it meanwhile, or does not decode it
		return 0, fmt.Errorf("find the screen's memory: %w: QEMU says %.200q", ErrHidden, said)
	}
	return strconv.ParseUint(words[1], 16, 64)
}
