package burdened

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
	"vmctl/packaging/testguest"
	"vmctl/vm/qmp"
)

// patience bounds every wait for a guest.
const patience = 2 * time.Minute

// Files makes vmctl and the guest from the sources at root; what belongs to this
// run is in dir.
func Files(ctx context.Context, root, dir string) (binary string, files lab.GuestFiles, err error) {
	if binary, err = lab.BuildBinary(ctx, root, filepath.Join(root, "dist")); err != nil {
		return "", files, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", files, err
	}
	image, err := testguest.BuildBurdened(ctx, filepath.Join(root, ".cache", "guest"), dir)
	return binary, lab.GuestFiles{Kernel: image.Kernel, Initrd: image.Initrd, Disk: image.DiskBase}, err
}

// Guest is the guest on host a, and the lab around it.
type Guest struct {
	*lab.Lab
	Monitor *qmp.Client
	http    *http.Client
}

// Start lays a lab, makes a cluster and boots the guest. Flags are those of `vmctl vm create`.
func Start(ctx context.Context, binary string, files lab.GuestFiles, flags ...string) (_ *Guest, err error) {
	l, err := lab.New(ctx, binary, func(string, ...any) {})
	if err != nil {
		return nil, err
	}
	g := &Guest{Lab: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	monitor := filepath.Join(l.Dir, "bench-qmp")
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	script := fmt.Sprintf("case \"$*\" in *guest=%s,*) set -- \"$@\" -qmp unix:%s,server=on,wait=off ;; esac\nexec %s \"$@\"\n", lab.GuestName, monitor, qemu)
	if err := l.A.Install("qemu-system-x86_64", script); err != nil {
		return nil, err
	}
	if err := l.Form(ctx); err != nil {
		return nil, err
	}
	if _, err := l.A.CreateBenchGuest(ctx, files, flags...); err != nil {
		return nil, err
	}
	g.http = &http.Client{Transport: &http.Transport{DialContext: g.dial, DisableKeepAlives: true}}
	err = lab.Eventually(ctx, patience, func() error {
		_, err := g.Do(ctx, "/", nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the guest does not answer: %w", err)
	}
	g.Monitor, err = qmp.Dial(ctx, monitor, nil)
	return g, err
}

// Close ends the guest and the lab.
func (g *Guest) Close() error {
	if g.Monitor != nil {
		_ = g.Monitor.Close()
	}
	return g.Lab.Close()
}

// dial reaches the guest as a client on the switch.
func (g *Guest) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	failed := lab.InNamespace(g.SwitchNS(), func() error {
		dialer := net.Dialer{Timeout: time.Second}
		conn, err = dialer.DialContext(ctx, network, addr)
		return nil
	})
	return conn, errors.Join(failed, err)
}

// Do has the guest do something, and gives what each operation took, by the
// guest's clock.
func (g *Guest) Do(ctx context.Context, path string, words url.Values) (took []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+lab.GuestAddr+path+"?"+words.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := g.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s in the guest: %s; its console: %s", path, response.Status, g.A.Console(""))
	}
	var result struct {
		Took []float64 `json:"took"`
	}
	if err := json.NewDecoder(response.Body).Decode(&result); err != nil {
		return nil, err
	}
	for _, us := range result.Took {
		took = append(took, time.Duration(us*1000))
	}
	return took, nil
}

// Protect changes the guest's protection, and waits until it is in force.
func (g *Guest) Protect(ctx context.Context, level string) error {
	began := time.Now()
	if _, err := g.A.CLI(ctx, "vm", "set", lab.GuestName, "--protection", level); err != nil {
		return err
	}
	if level != "none" {
		_, err := g.A.WaitState(ctx, patience, func(v api.VM) error {
			if v.Protection.Level != level {
				return errors.New("the protection does not change")
			}
			return lab.SyncedSince(began)(v)
		})
		return err
	}
	return lab.Eventually(ctx, patience, func() error { return g.unmirrored(ctx) })
}

// unmirrored says whether nothing of our mirrors is left in the guest's QEMU.
func (g *Guest) unmirrored(ctx context.Context) error {
	v, err := g.A.Show(ctx)
	if err != nil || v.Protection.Level != "none" {
		return errors.Join(errors.New("the protection does not change"), err)
	}
	var nodes []struct {
		Name   string `json:"node-name"`
		Driver string `json:"drv"`
	}
	if err := g.Monitor.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Driver == "nbd" {
			return fmt.Errorf("the disks are still mirrored to %s", n.Name)
		}
	}
	return nil
}
