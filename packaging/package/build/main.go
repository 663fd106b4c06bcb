package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	packages "vmctl/packaging/package"
)

func main() {
	version := flag.String("version", "", "what `git describe` says, or 1.2.3; default: ask git")
	out := flag.String("out", "dist", "`directory` of the packages")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *version, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build packages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, version, out string) error {
	root, err := packages.FindRoot()
	if err != nil {
		return err
	}
	built, err := packages.Build(ctx, packages.Options{Root: root, Version: version, Out: out, Log: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", built.Deb, built.RPM)
	return nil
}
