package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"vmctl/node/e2e/bench/burdened"
)

// More ways of replicating, in a guest.
const (
	armRestart = "ours, restart"
	armResume  = "ours, resume"
)

// database is not a load of single writes: see the guest's program.
var database = load{name: "sqlite transactions"}

// secondSize is the size of the second disk, in bytes.
const secondSize = 64 << 20

// farPort is where QEMU's own mirror finds the storage daemon on host b.
const farPort = "10809"

// inGuest is the rig in a real guest: the product in a lab. The guest has two
// disks, the second one for single writes.
type inGuest struct {
	*burdened.Guest
	far *exec.Cmd
}

func newInGuest(ctx context.Context, work string) (_ rig, err error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	binary, files, err := burdened.Files(ctx, root, work)
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("TMPDIR", *dir); err != nil { // where labs are
		return nil, err
	}
	second := filepath.Join(work, "second")
	if err := fillEqual(secondSize, second, filepath.Join(work, "far1")); err != nil {
		return nil, err
	}
	if err := exec.CommandContext(ctx, "cp", files.Disk, filepath.Join(work, "far0")).Run(); err != nil {
		return nil, err
	}
	g := &inGuest{}
	if g.Guest, err = burdened.Start(ctx, binary, files, "--disk", "image="+second); err != nil {
		return nil, err
	}
	args := []string{"netns", "exec", g.B.Namespace(), "qemu-storage-daemon",
		"--nbd-server", "addr.type=inet,addr.host=" + g.B.Addr + ",addr.port=" + farPort + ",max-connections=10"}
	for i := range 2 {
		args = append(args, "--blockdev", fmt.Sprintf("driver=file,node-name=f%d,filename=%s,aio=threads,cache.direct=off", i, filepath.Join(work, fmt.Sprintf("far%d", i))),
			"--blockdev", fmt.Sprintf("driver=raw,node-name=d%d,file=f%d,discard=unmap,detect-zeroes=unmap", i, i),
			"--export", fmt.Sprintf("type=nbd,id=e%d,node-name=d%d,name=d%d,writable=on", i, i, i))
	}
	g.far = exec.Command("ip", args...) // the lab ends it, if nobody else does
	g.far.Stderr = os.Stderr
	if err := g.far.Start(); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (g *inGuest) arms() []string { return guestArms }
func (g *inGuest) loads() []load  { return guestLoads }

func (g *inGuest) start(ctx context.Context, arm string) error {
	switch arm {
	case armRestart:
		return g.Protect(ctx, "restart")
	case armResume:
		return g.Protect(ctx, "resume")
	}
	if err := g.Protect(ctx, "none"); err != nil || arm == armNone {
		return err
	}
	for i := range 2 {
		err := block{g.Monitor}.mirror(ctx, i, object{"driver": "nbd", "export": fmt.Sprintf("d%d", i), "discard": "unmap", "detect-zeroes": "unmap",
			"server": object{"type": "inet", "host": g.B.Addr, "port": farPort}})
		if err != nil {
			return err
		}
	}
	return nil
}

// stop leaves ours on: the next turn changes it.
func (g *inGuest) stop(ctx context.Context, arm string) error {
	if arm != armStock {
		return nil
	}
	return errors.Join(block{g.Monitor}.endMirror(ctx, 0), block{g.Monitor}.endMirror(ctx, 1))
}

func (g *inGuest) run(ctx context.Context, l load, turn time.Duration) (result, error) {
	words := url.Values{"seconds": {fmt.Sprint(turn.Seconds())}}
	path := "/sqlite"
	if l != database {
		path = "/write"
		words.Set("size", strconv.Itoa(l.size))
		words.Set("depth", strconv.Itoa(l.depth))
		words.Set("random", strconv.FormatBool(l.random))
	}
	began := time.Now()
	took, err := g.Do(ctx, path, words)
	return resultOf(took, time.Since(began)), err
}

func (g *inGuest) processes() []process { return nil }

func (g *inGuest) close() error {
	var err error
	if g.far.Process != nil {
		err = g.far.Process.Kill()
		_ = g.far.Wait() // it was killed
	}
	return errors.Join(err, g.Guest.Close())
}
