package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func haCommand() *cli.Command {
	return group("ha", "who may run which guest, and why",
		&cli.Command{Name: "status", Usage: "show owners, epochs and leases", Action: haStatus},
		&cli.Command{Name: "why", Usage: "explain what was decided about a guest, and what was not", ArgsUsage: "VM", Action: haWhy},
		&cli.Command{
			Name: "promote", Usage: "make this node the owner of a guest by hand", ArgsUsage: "VM",
			Description: "Only when you have made sure that the peer is off: if it still runs the guest, two copies write and\n" +
				"both are damaged. For a pair without a third vote; for a guest whose replica lacks writes, which nobody\n" +
				"takes over by itself ('vmctl ha why' says what it would begin from); and for a guest of this node that stands\n" +
				"frozen because nobody confirms that it may run. Refused while the peer is heard. With a witness that answers,\n" +
				"the witness has to agree.\n\n" +
				"Example:\n   vmctl ha promote till --confirm-peer-off",
			Flags:  []cli.Flag{&cli.BoolFlag{Name: "confirm-peer-off", Usage: "I have made sure that the peer is switched off", DisableDefaultText: true}},
			Action: haPromote,
		},
		&cli.Command{
			Name: "mode", Usage: "show or choose who is the third vote when a node falls silent", ArgsUsage: "[none|fence|bias]",
			Description: "witness  a third machine, the safest; chosen by `vmctl witness add`\n" +
				"fence    a silent node is switched off by the other's fencing device (section fence: of\n" +
				"         the config file) before its guests are taken over; both devices must work now\n" +
				"bias     NODE alone decides: it takes the other's guests over by itself, and the other's\n" +
				"         guests freeze whenever NODE is silent, also when it is NODE that died\n" +
				"none     nothing is started by itself\n\n" +
				"Examples:\n   vmctl ha mode fence --delay 5s\n   vmctl ha mode bias --bias node-a",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "bias", Usage: "the `NODE` that decides"},
				&cli.DurationFlag{Name: "delay", Value: 5 * time.Second, Usage: "head start of the node that runs the guests, a `TIME` longer than a shot takes"},
			},
			Action: haMode,
		},
		&cli.Command{
			Name: "fence-check", Usage: "ask this node's fencing device for the power of the other node; changes nothing",
			Action: haFenceCheck,
		},
	)
}

// maxFenceDelay is the longest head start that the lease core takes.
const maxFenceDelay = time.Hour

func haMode(c *cli.Context) error {
	if c.NArg() == 0 {
		cluster, err := client(c).Cluster(c.Context)
		if err != nil {
			return err
		}
		return show(c, cluster, func(w *tabwriter.Writer) { fmt.Fprintln(w, modeText(cluster)) })
	}
	args, err := arguments(c, "none|fence|bias")
	if err != nil {
		return err
	}
	if args[0] != "bias" && c.IsSet("bias") || args[0] != "fence" && c.IsSet("delay") {
		return wrong(c, "mode %s: --bias belongs to the mode bias, --delay to the mode fence", args[0])
	}
	change := api.ModeChange{Mode: args[0], Bias: c.String("bias")}
	switch args[0] {
	case "bias":
		if _, err := required(c, "bias"); err != nil {
			return err
		}
	case "fence":
		delay, err := span(c, "delay")
		if err != nil {
			return err
		}
		if delay > maxFenceDelay {
			return wrong(c, "--delay %s: use up to %s", delay, maxFenceDelay)
		}
		change.DelaySeconds = delay.Seconds()
	}
	cluster, err := client(c).SetMode(c.Context, change)
	if err != nil {
		return err
	}
	return show(c, cluster, func(w *tabwriter.Writer) { fmt.Fprintln(w, modeText(cluster)) })
}

func modeText(cluster api.Cluster) string {
	switch cluster.Mode {
	case "witness":
		if cluster.Witness == nil {
			return "witness: it is not known here yet"
		}
		return "witness: " + cluster.Witness.Addr + " is the third vote"
	case "fence":
		return fmt.Sprintf("fence: a silent node is switched off before its guests are taken over (head start %g s)", cluster.FenceDelaySeconds)
	case "bias":
		return "bias: only " + cluster.Bias + " takes guests over by itself"
	}
	return "none: nothing is started by itself when a node dies"
}

func haFenceCheck(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	check, err := client(c).CheckFence(c.Context)
	if err != nil {
		return err
	}
	return show(c, check, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s: %s says that %s is %s\n", check.Node, check.Agent, check.Peer, check.Power)
	})
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
		fmt.Fprintf(w, "%s: %s\n%s\n", why.VM, why.Verdict, why.Reason)
		if why.Isolation != "" {
			fmt.Fprintf(w, "isolation %s\n", why.Isolation)
		}
		if r := why.Recovery; r != nil && r.Reason != "" {
			fmt.Fprintf(w, "%s: %s\n", r.State, r.Reason)
		}
		if why.Fallback != nil {
			fmt.Fprintf(w, "promoted by hand it would begin from %s\n", fallbackText(*why.Fallback))
		}
		fmt.Fprintln(w)
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
