package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "one screen; its first line answers \"am I protected?\"",
		Description: "The exit code says whether the agent answered, not whether guests are protected; for scripts that is in\n" +
			"--output json, as `protected`.",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			status, err := client(c).Status(c.Context)
			if err != nil {
				return err
			}
			return show(c, status, func(w *tabwriter.Writer) { statusScreen(w, status) })
		},
		OnUsageError: usageError,
	}
}

func statusScreen(w *tabwriter.Writer, s api.Status) {
	fmt.Fprintf(w, "%s %s\n\n", yesNo(s.Protected, "PROTECTED:", "NOT PROTECTED:"), s.Summary)
	fmt.Fprintf(w, "node\t%s\t%s, QEMU %s, %s\n", s.Node.Name, s.Node.Accel, s.Node.QEMU, count(s.Node.Guests, "guest"))
	if s.Cluster != nil {
		for _, m := range s.Cluster.Members {
			if m.Name != s.Cluster.Self {
				fmt.Fprintf(w, "peer\t%s\t%s, %s\n", m.Name, peerText(m), heard(m.SeenAgo))
			}
		}
		if x := s.Cluster.Witness; x != nil {
			fmt.Fprintf(w, "witness\t%s\t%s, %s\n", x.Addr, yesNo(x.Reachable, "reachable", "NOT REACHABLE"), heard(x.SeenAgo))
		}
	}
	for _, t := range s.Node.Notify {
		if t.Waiting > 0 || t.Lost > 0 || t.Failing != nil {
			fmt.Fprintf(w, "notifies\t%s\n", notifyText(t))
		}
	}
	for _, alarm := range s.Node.Alarms {
		fmt.Fprintf(w, "alarm\t%s\t%s\n", alarm.Kind, alarm.Text)
	}
	for _, v := range s.VMs {
		for _, k := range v.Kept {
			fmt.Fprintf(w, "kept\t%s\t%s\n", v.Name, keptText(k))
		}
	}
	if len(s.VMs) > 0 {
		fmt.Fprintln(w)
		vmTable(w, s.VMs)
	}
}

// peerText is whether the peer is heard, and what it announced.
func peerText(m api.Member) string {
	switch m.State {
	case api.MemberMaintenance:
		return "in maintenance, " + yesNo(m.Reachable, "reachable", "not reachable")
	case api.MemberDown:
		return "shut down on purpose"
	}
	return yesNo(m.Reachable, "reachable", "NOT REACHABLE")
}
