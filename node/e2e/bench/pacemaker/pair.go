package pacemaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vmctl/node/e2e/lab"
)

const (
	// UUID is the guest's.
	UUID = "6d2f4b0e-5c1d-4f0a-9a57-1f3f5a1c7e11"

	shared   = "/shared" // as hosts see the shared directory
	patience = 3 * time.Minute
)

// Pair is two hosts with pacemaker and one guest.
type Pair struct {
	*lab.Lab
	tree   string
	shared string // the directory that both hosts share
	power  *powerSwitch
}

// New lays the pair's network, boots the hosts and starts the guest.
func New(ctx context.Context, tree string, guest lab.GuestFiles, timing Timing) (_ *Pair, err error) {
	l, err := lab.New(ctx, "", func(string, ...any) {})
	if err != nil {
		return nil, err
	}
	p := &Pair{Lab: l, tree: tree, shared: filepath.Join(l.Dir, "shared")}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.startSwitch(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Mkdir(p.shared, 0o755), p.writeConfig(timing), p.writeGuest(guest)); err != nil {
		return nil, err
	}
	for _, h := range []*lab.Host{p.A, p.B} {
		if err := errors.Join(p.writeLayer(h), p.PowerOn(ctx, h)); err != nil {
			return nil, err
		}
	}
	if err := p.form(ctx); err != nil {
		return nil, fmt.Errorf("form pacemaker's cluster: %w", err)
	}
	return p, nil
}

// Close removes everything.
func (p *Pair) Close() error {
	var err error
	if p.power != nil {
		err = p.power.close()
	}
	return errors.Join(p.Lab.Close(), err)
}

// form makes the hosts one cluster that runs the guest.
func (p *Pair) form(ctx context.Context) error {
	if err := p.online(ctx, p.A); err != nil {
		return err
	}
	for _, h := range []*lab.Host{p.A, p.B} {
		// libvirt learns once and for all what QEMU can do.
		if out, err := p.run(ctx, h, "virsh", "-q", "-c", "qemu:///system", "domcapabilities", "--virttype", "qemu"); err != nil {
			return fmt.Errorf("libvirt on %s: %w: %s", h.Name, err, out)
		}
	}
	_, port, err := net.SplitHostPort(p.power.listener.Addr().String())
	if err != nil {
		return err
	}
	cib, err := fill("cib.xml", "SWITCH", lab.SwitchAddr, "PORT", port, "GUEST", lab.GuestName)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(p.shared, "cib.xml"), cib, 0o644); err != nil {
		return err
	}
	if out, err := p.run(ctx, p.A, "cibadmin", "--replace", "--scope", "configuration", "--xml-file", shared+"/cib.xml"); err != nil {
		return fmt.Errorf("configure: %w: %s", err, out)
	}
	return p.Settled(ctx, p.A)
}

// Settled waits until both hosts are members and nothing is left to do, as a
// host sees it.
func (p *Pair) Settled(ctx context.Context, h *lab.Host) error {
	if err := p.online(ctx, h); err != nil {
		return err
	}
	if out, err := p.run(ctx, h, "crm_resource", "--wait", "--timeout=120s"); err != nil {
		return fmt.Errorf("wait for pacemaker: %w: %s", err, out)
	}
	return nil
}

func (p *Pair) online(ctx context.Context, h *lab.Host) error {
	return lab.Eventually(ctx, patience, func() error {
		out, err := p.run(ctx, h, "crm_mon", "-1")
		if err != nil || !strings.Contains(out, "Online: [ a b ]") {
			time.Sleep(500 * time.Millisecond) // looking costs the hosts processor time
			return fmt.Errorf("host %s does not see both online: %v: %s", h.Name, err, out)
		}
		return nil
	})
}

// Owner is the host that runs the guest, and the other one.
func (p *Pair) Owner(ctx context.Context) (owner, other *lab.Host, err error) {
	switch a, b := p.A.QEMU(ctx, UUID), p.B.QEMU(ctx, UUID); {
	case a != 0 && b == 0:
		return p.A, p.B, nil
	case b != 0 && a == 0:
		return p.B, p.A, nil
	default:
		return nil, nil, errors.New("the guest runs on " + strconv.Itoa(min(a, 1)+min(b, 1)) + " hosts")
	}
}
