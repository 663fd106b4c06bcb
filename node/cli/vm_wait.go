package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

// replicaSynced is what may be waited for besides a run state.
const replicaSynced = "synced"

// states are the words that the state of a guest may have: QEMU's, and ours
// for a guest without one, without a lease, or without an answer.
var states = []string{
	"running", "paused", "stopped", "frozen", "unknown", "prelaunch", "inmigrate", "postmigrate", "finish-migrate", "save-vm",
	"restore-vm", "shutdown", "suspended", "io-error", "guest-panicked", "internal-error", "watchdog", "debug", "colo",
}

const waitEvery = 100 * time.Millisecond

func vmWaitCommand() *cli.Command {
	return &cli.Command{
		Name: "wait", Usage: "wait until a guest is in a state, or its replica is synced", ArgsUsage: "NAME",
		Description: "Exit code 0 once it is so, 1 if it is not so after the timeout.\n\n" +
			"Examples:\n   vmctl vm wait till --state synced --timeout 5m\n   vmctl vm wait till --state stopped",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state", Value: "running", Usage: "a run `STATE` such as running, paused or stopped, or synced for the replica"},
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "give up after `TIME`, such as 30s"},
		},
		Action: vmWait,
	}
}

func vmWait(c *cli.Context) error {
	args, err := arguments(c, "NAME")
	if err != nil {
		return err
	}
	want := c.String("state")
	if want != replicaSynced && !slices.Contains(states, want) {
		return wrong(c, "--state %q is no state: use running, paused, stopped, synced or another word of `vmctl vm show`", want)
	}
	bound, err := span(c, "timeout")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, bound)
	defer cancel()
	agent := client(c)
	defer agent.Close()
	v, err := awaitState(ctx, agent, args[0], want)
	if errors.Is(err, context.DeadlineExceeded) && c.Context.Err() == nil {
		return api.Errorf(api.Failed, "wait for %s to be %s: it is %s after %s", args[0], want, stateText(v, want), bound).
			WithHint("See `vmctl ha why %s` and `vmctl events --vm %s`.", args[0], args[0])
	}
	if err != nil {
		return err
	}
	return show(c, v, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is %s\n", v.Name, want) })
}

// awaitState returns the guest once it is as wanted, or as it was last seen.
func awaitState(ctx context.Context, agent *api.Client, name, want string) (last api.VM, err error) {
	ticker := time.NewTicker(waitEvery)
	defer ticker.Stop()
	for {
		v, err := agent.VM(ctx, name)
		if err != nil {
			return last, err
		}
		last = v
		if v.State == want || want == replicaSynced && v.Replica != nil && v.Replica.State == want {
			return last, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
}

func stateText(v api.VM, want string) string {
	switch {
	case v.State == "":
		return "not known, the agent has not answered"
	case want == replicaSynced && v.Protection.Level == "none":
		return "not protected and has no replica"
	case want == replicaSynced && v.Replica != nil:
		return strings.TrimSpace(v.State + ", its replica " + v.Replica.State + resyncText(v.Replica) + " " + v.Replica.Reason)
	case want == replicaSynced:
		return v.State + ", without a replica"
	}
	return strings.TrimSpace(v.State + " " + v.Reason)
}
