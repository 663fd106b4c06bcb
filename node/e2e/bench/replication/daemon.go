package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"vmctl/node/e2e/lab"
	"vmctl/vm/qmp"
)

type object = map[string]any

// daemon is a QEMU storage daemon with one disk, as the command line of a guest
// makes it: top0 for the device, d0 with the content.
type daemon struct {
	cmd     *exec.Cmd
	monitor *qmp.Client
	second  string // socket of a monitor for somebody else
}

func startDaemon(ctx context.Context, dir, image string) (_ *daemon, err error) {
	d := &daemon{second: filepath.Join(dir, "qmp1")}
	first := filepath.Join(dir, "qmp0")
	args := []string{}
	for i, socket := range []string{first, d.second} {
		args = append(args, "--chardev", fmt.Sprintf("socket,id=m%d,path=%s,server=on,wait=off", i, socket), "--monitor", fmt.Sprintf("chardev=m%d", i))
	}
	d.cmd = exec.Command("qemu-storage-daemon", append(args,
		"--blockdev", "driver=file,node-name=f0,filename="+image+",aio=threads,cache.direct=off,cache.no-flush=off,discard=unmap",
		"--blockdev", "driver=raw,node-name=d0,file=f0,cache.direct=off,cache.no-flush=off,discard=unmap,detect-zeroes=unmap",
		"--blockdev", "driver=raw,node-name=top0,file=d0,cache.direct=off,cache.no-flush=off,discard=unmap")...)
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	err = lab.Eventually(ctx, 5*time.Second, func() (err error) {
		d.monitor, err = qmp.Dial(ctx, first, nil)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *daemon) close() error {
	if d.monitor != nil {
		_ = d.monitor.Close()
	}
	err := d.cmd.Process.Kill()
	_ = d.cmd.Wait() // it was killed
	return err
}

// block changes the block graph of a QEMU through its monitor.
type block struct{ qmp.Executor }

func (b block) do(ctx context.Context, command string, args object) error {
	return b.Execute(ctx, command, args, nil)
}

// export exports a node to whoever connects to the socket.
func (b block) serve(ctx context.Context, addr object) error {
	return b.do(ctx, "nbd-server-start", object{"addr": addr})
}

func (b block) export(ctx context.Context, node, name string) error {
	return b.do(ctx, "block-export-add", object{"type": "nbd", "id": name, "node-name": node, "name": name, "writable": true})
}

// mirror has QEMU itself write each block of the disk i to a target too, before
// the write is done. What was there before is not copied.
func (b block) mirror(ctx context.Context, i int, target object) error {
	target["node-name"] = mirrorTarget(i)
	if err := b.do(ctx, "blockdev-add", target); err != nil {
		return err
	}
	return b.do(ctx, "blockdev-mirror", object{"job-id": mirrorJob(i), "device": fmt.Sprintf("top%d", i), "target": mirrorTarget(i), "sync": "none",
		"copy-mode": "write-blocking", "on-target-error": "report"})
}

func mirrorJob(i int) string    { return fmt.Sprintf("bench%d", i) }
func mirrorTarget(i int) string { return fmt.Sprintf("target%d", i) }

// endMirror takes it down.
func (b block) endMirror(ctx context.Context, i int) error {
	if err := b.do(ctx, "block-job-cancel", object{"device": mirrorJob(i), "force": true}); err != nil {
		return err
	}
	err := lab.Eventually(ctx, 5*time.Second, func() error {
		var jobs []struct{ Device string }
		if err := b.Execute(ctx, "query-block-jobs", nil, &jobs); err != nil {
			return err
		}
		for _, j := range jobs {
			if j.Device == mirrorJob(i) {
				return errors.New("the mirror does not end")
			}
		}
		return nil
	})
	return errors.Join(err, b.do(ctx, "blockdev-del", object{"node-name": mirrorTarget(i)}))
}

// filter is the node that a mirror has put on top of others.
func (b block) filter(ctx context.Context) (string, error) {
	var nodes []struct {
		Name   string `json:"node-name"`
		Driver string `json:"drv"`
	}
	if err := b.Execute(ctx, "query-named-block-nodes", object{"flat": true}, &nodes); err != nil {
		return "", err
	}
	for _, n := range nodes {
		if n.Driver == "mirror_top" {
			return n.Name, nil
		}
	}
	return "", errors.New("there is no mirror")
}
