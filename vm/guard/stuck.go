package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// EndStuck ends a guard that does not answer, and its QEMU, which it could not
// freeze at the end of the lease either. It returns when both are gone, or with
// an error. ErrNoGuard and ErrGone are those of Attach.
func EndStuck(ctx context.Context, configPath string) error {
	l, err := ReadLaunch(configPath)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end guard: %w: %w", ErrNoGuard, err)
	}
	if err != nil {
		return fmt.Errorf("end guard: %w", err)
	}
	if err := endStuck(ctx, l); err != nil {
		return fmt.Errorf("end the guard of %s: %w", l.Guest.Name, err)
	}
	return nil
}

func endStuck(ctx context.Context, l Launch) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", l.Socket)
	if err != nil {
		if goneLike(err) {
			err = &GoneError{Detail: err.Error()}
		}
		return err
	}
	defer conn.Close()
	cred, err := peerCred(conn.(*net.UnixConn)) // of the process that listens
	if err != nil {
		return err
	}
	pid := int(cred.Pid)
	guard, err := openProcess(pid)
	if err != nil {
		return &GoneError{Detail: err.Error()}
	}
	defer guard.close()
	// After the pidfd is open, so that it is of the process this is said of.
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte("guard\x00"+l.ConfigPath+"\x00")) {
		return fmt.Errorf("socket %s belongs to process %d, which is no guard of it: remove it by hand", l.Socket, pid)
	}
	children, err := childrenOf(pid)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range children {
			c.close()
		}
	}()
	for _, p := range append(children, guard) {
		if err := p.kill(); err != nil {
			return err
		}
		if err := waitFor(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// waitFor waits for a process's end, or ctx's.
func waitFor(ctx context.Context, p *process) error {
	stop := context.AfterFunc(ctx, p.close)
	defer stop()
	if err := p.wait(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// childrenOf opens the children of a process.
func childrenOf(parent int) (list []*process, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || parentOf(path) != parent {
			continue
		}
		p, err := openProcess(pid)
		if err != nil {
			continue // it has ended
		}
		if parentOf(path) != parent { // another process by now
			p.close()
			continue
		}
		list = append(list, p)
	}
	return list, nil
}

// parentOf reads the parent's pid, 0 if the process has ended.
func parentOf(stat string) int {
	data, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return pid
}
