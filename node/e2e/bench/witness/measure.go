package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"vmctl/ha"
	"vmctl/node/peer"
)

const (
	listen = "127.0.0.1:7441"
	settle = 15 * time.Second // after the last link was made
)

func readToken(dir string) (peer.Token, error) {
	data, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		return peer.Token{}, err
	}
	return peer.ParseToken(strings.TrimSpace(string(data)), peer.WitnessToken)
}

// startWitness runs the program; stop ends it.
func startWitness(ctx context.Context, dir string) (pid int, stop func(), err error) {
	cmd := exec.CommandContext(ctx, *binary, "witness", "run", "--state-dir", dir, "--listen", listen, "--name", "w")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1") // as its unit says
	log, err := cmd.StderrPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	lines := bufio.NewReader(log)
	for line := ""; err == nil && !strings.Contains(line, "witness is ready"); {
		line, err = lines.ReadString('\n')
	}
	if err != nil {
		return 0, nil, errors.Join(fmt.Errorf("the witness did not start: %w", err), cmd.Wait())
	}
	read := make(chan struct{})
	go func() { defer close(read); _, _ = io.Copy(io.Discard, lines) }()
	return cmd.Process.Pid, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		_ = cmd.Wait()
	}, nil
}

// measure has one witness serve n pairs and watches it.
func measure(ctx context.Context, n int) (f figures, err error) {
	dir, err := os.MkdirTemp("", "bench-witness-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	pid, stop, err := startWitness(ctx, dir)
	if err != nil {
		return f, err
	}
	defer stop()
	var answers times
	var nodes sync.WaitGroup
	defer nodes.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pairs, err := enrolPairs(ctx, n, dir)
	if err != nil {
		return f, err
	}
	for i, p := range pairs {
		if err := addPair(ctx, p, i < *cores, dir, &answers, &nodes); err != nil {
			return f, err
		}
		if i%16 == 15 { // all come from one address, which may not take all the witness's doors
			if err := linked(ctx, pid, 2*i-4); err != nil {
				return f, err
			}
		}
	}
	if err := linked(ctx, pid, 2*n); err != nil {
		return f, err
	}
	porter, err := porterMost(pid)
	if err != nil {
		return f, err
	}
	time.Sleep(settle)
	if err := alone(ctx, pid, settle); err != nil {
		return f, err
	}
	if err := forgetMost(pid); err != nil {
		return f, err
	}
	before, err := look(pid)
	if err != nil {
		return f, err
	}
	answers.take()
	time.Sleep(*window)
	after, err := look(pid)
	if err != nil {
		return f, err
	}
	if err := alone(ctx, pid, 0); err != nil {
		return f, err
	}
	f = figures{pairs: n, span: after.at.Sub(before.at), before: before, after: after, porter: porter}
	f.sent, f.took = answers.take()
	return f, nil
}

// enrolPairs makes pairs that the witness knows.
func enrolPairs(ctx context.Context, n int, dir string) (pairs [][2]*peer.Identity, err error) {
	for i := range n {
		a, b, err := pair(fmt.Sprintf("shop%d", i))
		if err != nil {
			return nil, err
		}
		if err := enrol(ctx, a, listen, dir); err != nil {
			return nil, err
		}
		pairs = append(pairs, [2]*peer.Identity{a, b})
	}
	return pairs, nil
}

func addPair(ctx context.Context, ids [2]*peer.Identity, real bool, dir string, answers *times, nodes *sync.WaitGroup) error {
	token, err := readToken(dir)
	if err != nil {
		return err
	}
	to := peer.Remote{Addr: listen, Fingerprint: token.Fingerprint}
	a, err := newNode(ctx, ids[0], ids[1], to, answers)
	if err != nil {
		return err
	}
	b, err := newNode(ctx, ids[1], ids[0], to, answers)
	if err != nil {
		return err
	}
	a.peer, b.peer = b, a
	owns := map[*node]int{a: (*guests + 1) / 2, b: *guests / 2}
	for n, guests := range owns {
		after := rand.N(ha.DefaultTiming().Lease / 3) // hosts are not in step
		nodes.Go(func() {
			if real {
				n.run(ctx, guests, after)
			} else {
				n.repeat(ctx, ha.NodeID(peer.WitnessID(token.Fingerprint)), guests, after)
			}
			n.links.Wait()
		})
	}
	return nil
}
