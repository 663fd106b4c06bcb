package vm

import (
	"errors"
	"fmt"

	"vmctl/vm/network"
)

// Clean removes what a guest that ended left outside its own directory: taps,
// sockets and, unless keepRAM, its memory. A replica's memory is kept.
func Clean(p Platform, s Spec, l Layout, keepRAM bool) error {
	if running(l) {
		return fmt.Errorf("clean up after guest %q: %w", s.Name, ErrRunning)
	}
	errs := []error{clearRuntime(l)}
	for i, nic := range s.NICs {
		if nic.Type == NICBridge {
			errs = append(errs, p.Network.Remove(s.TapName(i)))
		}
	}
	if !keepRAM {
		errs = append(errs, removeFile(l.RAM()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after guest %q: %w", s.Name, err)
	}
	return nil
}

// HostNetwork is the Network of this host.
type HostNetwork struct{}

// Attach implements Network.
func (HostNetwork) Attach(tap, bridge, mac string) error { return network.Attach(tap, bridge, mac) }

// Remove implements Network.
func (HostNetwork) Remove(tap string) error { return network.Remove(tap) }

// CheckTap implements Network.
func (HostNetwork) CheckTap(tap string) error { return network.CheckTap(tap) }

// SetLink implements Network.
func (HostNetwork) SetLink(tap string, up bool) error { return network.SetLink(tap, up) }

// undoList takes steps back in reverse order.
type undoList []func() error

func (u *undoList) add(step func() error) { *u = append(*u, step) }

func (u *undoList) run() error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		errs = append(errs, (*u)[i]())
	}
	return errors.Join(errs...)
}
