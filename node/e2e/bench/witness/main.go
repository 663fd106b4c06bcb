package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"vmctl/node/e2e/lab"
)

// inside, set, says that this process is in its own network namespace.
const inside = "VMCTL_BENCH_WITNESS"

var (
	pairs  = flag.String("pairs", "1,10,100,1000", "how many pairs, one measurement each")
	window = flag.Duration("time", 30*time.Second, "how long to watch the settled witness")
	cores  = flag.Int("cores", 100, "how many pairs have real lease cores; the others repeat what a calm one says")
	guests = flag.Int("guests", 3, "guests of a pair")
	binary = flag.String("binary", "", "a vmctl program to measure instead of this tree's")
	out    = flag.String("out", "bench/witness.md", "the table's file, or - for none")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := measureAll
	if os.Getenv(inside) == "" {
		run = enter
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// enter runs this program again in a network namespace of its own.
func enter(ctx context.Context) error {
	args := os.Args[1:]
	if *binary == "" {
		root, err := os.Getwd()
		if err != nil {
			return err
		}
		built, err := lab.BuildBinary(ctx, root, filepath.Join(root, "dist"))
		if err != nil {
			return err
		}
		args = append([]string{"-binary", built}, args...)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	return cmd.Run()
}

func measureAll(ctx context.Context) error {
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	var rows strings.Builder
	for text := range strings.SplitSeq(*pairs, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return errors.New("-pairs is not a list of numbers")
		}
		figures, err := measure(ctx, n)
		if err != nil {
			return err
		}
		fmt.Print(figures)
		rows.WriteString(figures.row())
	}
	table := heading() + rows.String() + notes
	if *out == "-" {
		return nil
	}
	return os.WriteFile(*out, []byte(table), 0o644)
}
