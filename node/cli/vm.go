package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"vmctl/node/api"
)

func vmCommand() *cli.Command {
	return group("vm", "make, run and look at guests",
		vmCreateCommand(), vmSetCommand(),
		&cli.Command{Name: "ls", Usage: "list guests", Action: vmList},
		&cli.Command{Name: "show", Usage: "show one guest", ArgsUsage: "NAME", Action: vmShow},
		vmVerb(api.Start, "start a guest and wait until it runs", forceFlag()),
		vmVerb(api.Stop, "ask the guest to shut down; end it when it has not after the timeout",
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "`TIME` the guest has, such as 30s"}),
		vmVerb(api.Kill, "end a guest at once, like pulling its plug"),
		vmVerb(api.Reset, "press the guest's reset button"),
		vmVerb(api.Pause, "stop the guest's processors; it stays in memory"),
		vmVerb(api.Unpause, "let a paused guest go on"),
		&cli.Command{
			Name: "rm", Usage: "remove a stopped guest, its disks and its replica", ArgsUsage: "NAME",
			Flags:  []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "end it first if it runs, and remove it although the peer cannot be told", DisableDefaultText: true}},
			Action: vmRemove,
		},
		vmConsoleCommand(), vmLogsCommand(), vmWaitCommand(), vmKeptCommand(), vmVerifyCommand(), vmDiskCommand(),
	)
}

func vmVerb(verb api.Verb, usage string, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: string(verb), Usage: usage, ArgsUsage: "NAME", Flags: flags,
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			bound, err := span(c, "timeout")
			if err != nil {
				return err
			}
			agent := client(c)
			agent.Force = c.Bool("force")
			v, err := agent.Act(c.Context, args[0], verb, bound)
			if err != nil {
				return err
			}
			warn(c, v)
			return show(c, v, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is %s on %s\n", v.Name, v.State, v.Owner) })
		},
	}
}

func vmList(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	vms, err := client(c).VMs(c.Context)
	if err != nil {
		return err
	}
	return show(c, vms, func(w *tabwriter.Writer) { vmTable(w, vms) })
}

func vmTable(w *tabwriter.Writer, vms []api.VM) {
	fmt.Fprintln(w, "NAME\tSTATE\tOWNER\tEPOCH\tCPUS\tMEMORY\tPROTECTION")
	for _, v := range vms {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\n", v.Name, v.State, v.Owner, v.Epoch, v.CPUs, v.Memory, protectionText(v))
	}
}

func vmShow(c *cli.Context) error {
	args, err := arguments(c, "NAME")
	if err != nil {
		return err
	}
	v, err := client(c).VM(c.Context, args[0])
	if err != nil {
		return err
	}
	return show(c, v, func(w *tabwriter.Writer) { vmScreen(w, v) })
}

func vmScreen(w *tabwriter.Writer, v api.VM) {
	fmt.Fprintf(w, "name\t%s\nuuid\t%s\nstate\t%s\n", v.Name, v.UUID, v.State)
	if v.Reason != "" {
		fmt.Fprintf(w, "reason\t%s\n", v.Reason)
	}
	fmt.Fprintf(w, "owner\t%s, epoch %d\nprotection\t%s\n", v.Owner, v.Epoch, protectionText(v))
	fmt.Fprintf(w, "lease\t%s\n", leaseText(v.Lease))
	if k := v.Checkpoint; k != nil {
		fmt.Fprintf(w, "checkpoint\t%d of epoch %d at %s, guest stopped %.1f ms, %s\n", k.Sequence, k.Epoch,
			k.Time.Local().Format(time.TimeOnly), k.PauseMS, bytesText(k.Bytes))
	}
	if r := v.Replica; r != nil {
		fmt.Fprintf(w, "replica\ton %s, %s%s %s\n", r.Node, r.State, resyncText(r), r.Reason)
		if r.Trial != nil && r.Trial.State != api.TrialLoads {
			fmt.Fprintf(w, "resume\t%s\n", r.Trial.Why())
		}
		if r.Standby != "" {
			fmt.Fprintf(w, "standby\ton %s, %s %s\n", r.Node, r.Standby, r.StandbyReason)
		}
		if r.Fallback != nil {
			fmt.Fprintf(w, "fallback\t%s\n", fallbackText(*r.Fallback))
		}
		fmt.Fprintf(w, "verified\t%s\n", verifiedLine(v.Verified))
	}
	for _, k := range v.Kept {
		fmt.Fprintf(w, "kept\t%s\n", keptText(k))
	}
	if a := v.GuestAgent; a != nil {
		fmt.Fprintf(w, "guest agent\t%s\n", agentText(a))
	}
	if v.PID != 0 {
		fmt.Fprintf(w, "process\t%d\nqmp socket\t%s\n", v.PID, v.QMPSocket)
	}
	if v.VNCSocket != "" {
		fmt.Fprintf(w, "screen\tvnc, %s\n", v.VNCSocket)
	}
	if v.SerialLog != "" {
		fmt.Fprintf(w, "serial log\t%s\n", v.SerialLog)
	}
	w.Flush()
	if v.Spec != nil {
		fmt.Fprintf(w, "\n%s", specText(v.Spec))
	}
}

func agentText(a *api.GuestAgent) string {
	switch {
	case !a.Answers && a.Reason == "":
		return "not asked yet"
	case !a.Answers:
		return "does not answer: " + a.Reason
	case a.ClockBehindSeconds != nil && *a.ClockBehindSeconds < 0:
		return fmt.Sprintf("answers, its clock is %.2f s ahead", -*a.ClockBehindSeconds)
	case a.ClockBehindSeconds != nil:
		return fmt.Sprintf("answers, its clock is %.2f s behind", *a.ClockBehindSeconds)
	}
	return "answers"
}

// specText writes the spec as the YAML that `vm create -f` reads.
func specText(spec any) string {
	data, err := json.Marshal(spec)
	if err != nil {
		return ""
	}
	var plain any
	if yaml.Unmarshal(data, &plain) != nil {
		return ""
	}
	out, err := yaml.Marshal(plain)
	if err != nil {
		return ""
	}
	return string(out)
}

func vmRemove(c *cli.Context) error {
	args, err := arguments(c, "NAME")
	if err != nil {
		return err
	}
	if err := client(c).Remove(c.Context, args[0], c.Bool("force")); err != nil {
		return err
	}
	return show(c, struct{}{}, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s removed\n", args[0]) })
}

func vmLogsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "print the guest's serial log", ArgsUsage: "NAME",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what is added", DisableDefaultText: true}},
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			log, err := client(c).Logs(c.Context, args[0], c.Bool("follow"))
			if err != nil {
				return err
			}
			defer log.Close()
			_, err = io.Copy(c.App.Writer, log)
			switch {
			case c.Context.Err() != nil:
				return nil
			case err != nil:
				return api.Errorf(api.Unreachable, "print the log of %s: %v", args[0], err)
			case c.Bool("follow"):
				return api.Errorf(api.Unreachable, "follow the log of %s: the agent ended it", args[0])
			}
			return nil
		},
	}
}
