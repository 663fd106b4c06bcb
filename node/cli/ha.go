package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func haCommand() *cli.Command {
	return group("ha", "who may run which guest, and why",
		&cli.Command{Name: "status", Usage: "show owners, epochs and leases", Action: haStatus},
		&cli.Command{Name: "why", Usage: "explain what was decided about a guest, and what was not", ArgsUsage: "VM", Action: haWhy},
		&cli.Command{
			Name: "promote", Usage: "make this node the owner of a guest by hand", ArgsUsage: "VM",
			Description: "Only for a pair without a witness, and only when you have made sure that the peer is off:\n" +
				"if it still runs the guest, two copies write and both are damaged.",
			Flags:  []cli.Flag{&cli.BoolFlag{Name: "confirm-peer-off", Usage: "I have made sure that the peer is switched off", DisableDefaultText: true}},
			Action: haPromote,
		},
	)
}

func haStatus(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	status, err := client(c).HA(c.Context)
	if err != nil {
		return err
	}
	return show(c, status, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "node %s, mode %s\n", status.Node, status.Mode)
		fmt.Fprintln(w, "VM\tOWNER\tEPOCH\tPROTECTION\tREPLICA\tLEASE\tVERDICT")
		for _, g := range status.Guests {
			replica := "-"
			if g.Protection != "none" {
				replica = yesNo(g.Outdated, "outdated", "current")
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", g.VM, g.Owner, g.Epoch, g.Protection, replica, leaseText(g.Lease), g.Reason)
		}
	})
}

func leaseText(l *api.Lease) string {
	switch {
	case l == nil:
		return "-"
	case !l.Required:
		return "not needed"
	case l.RemainingSeconds <= 0:
		return "EXPIRED"
	}
	return fmt.Sprintf("%.1f s left", l.RemainingSeconds)
}

func haWhy(c *cli.Context) error {
	args, err := arguments(c, "VM")
	if err != nil {
		return err
	}
	why, err := client(c).Why(c.Context, args[0])
	if err != nil {
		return err
	}
	return show(c, why, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s: %s\n%s\n\n", why.VM, why.Verdict, why.Reason)
		for _, e := range why.History {
			eventLine(w, e)
		}
	})
}

func haPromote(c *cli.Context) error {
	args, err := arguments(c, "VM")
	if err != nil {
		return err
	}
	v, err := client(c).Promote(c.Context, args[0], c.Bool("confirm-peer-off"))
	if err != nil {
		return err
	}
	return show(c, v, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s: owner %s, epoch %d, %s\n", v.Name, v.Owner, v.Epoch, v.State)
	})
}
