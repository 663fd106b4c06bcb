package samples

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main is the main function of a bench: it runs until it is done or interrupted,
// and an error ends the process.
func Main(name string, run func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// Measure lets measure add samples to the file out.jsonl, which begins empty
// unless more are wanted, prints the page that report makes of them and leaves
// it in out.md. There is a page of what was measured before something failed.
func Measure[S any](out string, more bool, measure func(raw string) error, report func([]S) string) error {
	raw := out + ".jsonl"
	if !more {
		if err := os.RemoveAll(raw); err != nil {
			return err
		}
	}
	err := measure(raw)
	all, failed := Read[S](raw)
	if err = errors.Join(err, failed); err != nil && len(all) == 0 {
		return err
	}
	page := report(all)
	fmt.Print(page)
	return errors.Join(err, os.WriteFile(out+".md", []byte(page), 0o644))
}
