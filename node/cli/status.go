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
	fmt.Fprintf(w, "node\t%s\t%s, QEMU %s, %d guests\n", s.Node.Name, s.Node.Accel, s.Node.QEMU, s.Node.Guests)
	if s.Cluster != nil {
		for _, m := range s.Cluster.Members {
			if m.Name != s.Cluster.Self {
				fmt.Fprintf(w, "peer\t%s\t%s, heard %s ago\n", m.Name, yesNo(m.Reachable, "reachable", "NOT REACHABLE"), ago(m.SeenAgo))
			}
		}
		if x := s.Cluster.Witness; x != nil {
			fmt.Fprintf(w, "witness\t%s\t%s, heard %s ago\n", x.Addr, yesNo(x.Reachable, "reachable", "NOT REACHABLE"), ago(x.SeenAgo))
		}
	}
	for _, alarm := range s.Node.Alarms {
		fmt.Fprintf(w, "alarm\t%s\t%s\n", alarm.Kind, alarm.Text)
	}
	if len(s.VMs) > 0 {
		fmt.Fprintln(w)
		vmTable(w, s.VMs)
	}
}
