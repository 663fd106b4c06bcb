package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Our two sides run in processes of their own, as agents do: this program again
// (or another build of it), in a role.
const (
	roleVariable = "VMCTL_BENCH_ROLE"
	roleOwner    = "owner"
	rolePeer     = "peer"
	roleCopier   = "copier"
)

// child is this program in a role. It works until its standard input ends.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// childBound is how long a child may take to end when it is told to.
const childBound = 10 * time.Second

// startChild starts one with its orders, and waits for its first word, or for the
// end of ctx, which ends it.
func startChild(ctx context.Context, program, role string, orders, word any) (_ *child, err error) {
	c := &child{cmd: exec.Command(program)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	kill := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	if err = json.NewEncoder(c.in).Encode(orders); err == nil {
		err = json.NewDecoder(out).Decode(word)
	}
	if !kill() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the %s: %w", role, err), c.stop())
	}
	return c, nil
}

// stop tells the child to end and waits for that; one that does not is killed, which
// is an error.
func (c *child) stop() error {
	defer time.AfterFunc(childBound, func() { _ = c.cmd.Process.Kill() }).Stop()
	return errors.Join(c.in.Close(), c.cmd.Wait())
}

// takeOrders reads what startChild has sent; ctx ends with the input.
func takeOrders(ctx context.Context, orders any) (context.Context, error) {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process at the latest
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx, json.Unmarshal(line, orders)
}

// say is the word that startChild waits for.
func say(word any) error { return json.NewEncoder(os.Stdout).Encode(word) }
