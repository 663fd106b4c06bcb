package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\nthe demo FAILED: %v\n", err)
		os.Exit(1)
	}
}

// say prints one step with the time since the start.
var began = time.Now()

func say(format string, args ...any) {
	fmt.Printf("%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context) (err error) {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	say("building vmctl and the guest (a Debian kernel, busybox, our workload)")
	binary, files, err := lab.Build(ctx, root, filepath.Join(root, "dist"))
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, binary, say)
	if err != nil {
		return err
	}
	defer func() {
		say("cleaning up")
		err = errors.Join(err, l.Close())
	}()
	if err := scenario(ctx, l, files); err != nil {
		for _, h := range []*lab.Host{l.A, l.B} {
			fmt.Fprintf(os.Stderr, "--- the last of host %s's log\n%s", h.Name, lab.Tail(h.LogFile(), 15))
		}
		return err
	}
	return nil
}

func scenario(ctx context.Context, l *lab.Lab, files lab.GuestFiles) error {
	say("starting nodes a and b and a witness, each in a network of its own, as one cluster")
	if err := l.Form(ctx); err != nil {
		return err
	}
	say("starting the guest on a: vmctl vm create %s --protection resume --start ...", lab.GuestName)
	v, err := l.A.CreateBenchGuest(ctx, files, "--protection", "resume")
	if err != nil {
		return err
	}
	recorder, err := l.Record(ctx, v.UUID)
	if err != nil {
		return err
	}
	first, err := l.WaitAnswer(ctx, time.Minute)
	if err != nil {
		return fmt.Errorf("the guest never answered: %w", err)
	}
	say("the guest answers over HTTP: token %s, counter %d", first.Token, first.Counter)
	if v, err = l.A.WaitState(ctx, time.Minute, lab.SyncedSince(time.Now())); err != nil {
		return err
	}
	say("b has the guest's memory, devices and disk: checkpoint %d, guest stopped for %.1f ms, %d kB", v.Checkpoint.Sequence, v.Checkpoint.PauseMS, v.Checkpoint.Bytes/1000)
	for range 3 {
		time.Sleep(time.Second)
		proof, err := l.Ask(ctx)
		if err != nil {
			return err
		}
		say("   counter %d", proof.Counter)
	}
	if err := failover(ctx, l, recorder, first); err != nil {
		return err
	}
	if err := comeBack(ctx, l, v.UUID); err != nil {
		return err
	}
	if overlaps := recorder.Stop(); len(overlaps) > 0 {
		return fmt.Errorf("two hosts executed the guest: %v", overlaps)
	}
	say("at no time did both hosts execute the guest (its own records and its vCPU threads were watched)")
	return finish(ctx, l, v)
}

// failover cuts a's power and measures what a client of the guest sees.
func failover(ctx context.Context, l *lab.Lab, recorder *lab.Recorder, first lab.Proof) error {
	v, err := l.A.Show(ctx)
	if err != nil {
		return err
	}
	cut := time.Now()
	if err := l.A.PowerCut(ctx); err != nil {
		return err
	}
	before, _, _ := recorder.Last()
	say("POWER CUT on a: every process killed, link down. Last counter seen: %d", before.Counter)
	stint, err := recorder.WaitOn(ctx, "b", cut, 30*time.Second)
	if err != nil {
		return err
	}
	proof, err := l.WaitAnswer(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	answered := time.Since(cut)
	if proof.Token != first.Token || proof.Broken {
		return fmt.Errorf("this is not the guest that ran on a, or it is broken: %+v", proof)
	}
	if least := recorder.CounterAt(v.Checkpoint.Time.Time); stint.From < least {
		return fmt.Errorf("it goes on at counter %d, but checkpoint %d has counter %d", stint.From, v.Checkpoint.Sequence, least)
	}
	lost := int64(before.Counter) - int64(stint.From) + 1
	say("b RESUMED the guest: its first word came %.2f s after the cut, an HTTP answer at %.2f s (goal 3 s)", stint.First.Sub(cut).Seconds(), answered.Seconds())
	say("   same token %s, counter goes on at %d, chain unbroken", proof.Token, proof.Counter)
	say("   work lost: %d steps, %.2f s (one checkpoint interval is %.1f s)", max(lost, 0), float64(max(lost, 0))/lab.BenchRate, v.Protection.IntervalSeconds)
	return nil
}

// comeBack powers a on again and waits until it is the standby.
func comeBack(ctx context.Context, l *lab.Lab, uuid string) error {
	found, err := l.A.VerifyDisks(ctx, uuid)
	if err != nil {
		return err
	}
	say("a's disk as the power cut left it: %s", found)
	say("power is back on a")
	if err := l.A.PowerOn(ctx); err != nil {
		return err
	}
	v, err := l.B.WaitState(ctx, time.Minute, lab.Synced)
	if err != nil {
		return err
	}
	say("a is the standby now: replica synced at checkpoint %d of epoch %d", v.Checkpoint.Sequence, v.Checkpoint.Epoch)
	out, err := l.B.CLI(ctx, "status")
	if err != nil {
		return err
	}
	fmt.Printf("\n$ vmctl status\n%s\n", out)
	return nil
}

// finish stops the guest and looks at its disk.
func finish(ctx context.Context, l *lab.Lab, v api.VM) error {
	if _, err := l.B.CLI(ctx, "vm", "stop", lab.GuestName, "--timeout", "20s"); err != nil {
		return err
	}
	report, err := l.B.VerifyDisks(ctx, v.UUID)
	if err != nil {
		return err
	}
	say("the guest's disk is clean and its records are one unbroken chain: %s", report)
	fmt.Println("\nThe guest went on, and nothing but the time since its last checkpoint was lost.")
	return nil
}
