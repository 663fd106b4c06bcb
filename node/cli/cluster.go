package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func clusterCommand() *cli.Command {
	return group("cluster", "make a pair of this node and another",
		&cli.Command{Name: "init", Usage: "make a cluster of this node alone", ArgsUsage: "NAME", Action: clusterInit},
		&cli.Command{Name: "token", Usage: "make a token that admits one node, once, within an hour", Action: clusterToken},
		&cli.Command{
			Name: "join", Usage: "take this node into the cluster of the node at ADDR:PORT", ArgsUsage: "ADDR:PORT",
			Description: "Example, with the first node at 10.0.0.1:\n" +
				"   first#  vmctl cluster init shop && vmctl cluster token\n" +
				"   second# vmctl cluster join 10.0.0.1:7440 --token vmctl-...",
			Flags:  []cli.Flag{&cli.StringFlag{Name: "token", Usage: "the `TOKEN` that `vmctl cluster token` printed there"}},
			Action: clusterJoin,
		},
		&cli.Command{Name: "status", Usage: "show the members and the witness", Action: clusterStatus},
		&cli.Command{
			Name: "leave", Usage: "take this node out of its cluster",
			Description: "First make every guest unprotected, on whichever node it is ('vmctl vm set NAME --protection none'): they run\n" +
				"on where they are. This node then knows nothing of the other's guests any more. The other node is not told and\n" +
				"shows this one as lost until it leaves as well.",
			Action: clusterLeave,
		},
	)
}

func clusterInit(c *cli.Context) error {
	args, err := arguments(c, "NAME")
	if err != nil {
		return err
	}
	cluster, err := client(c).Init(c.Context, args[0])
	if err != nil {
		return err
	}
	return show(c, cluster, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "cluster %s made; this node is %s\n", cluster.Name, cluster.Self)
		fmt.Fprintln(w, "next: `vmctl cluster token` here, then `vmctl cluster join ADDR:PORT --token T` on the other node")
	})
}

func clusterToken(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	token, err := client(c).NewToken(c.Context)
	if err != nil {
		return err
	}
	return show(c, token, func(w *tabwriter.Writer) { fmt.Fprintln(w, token.Token) })
}

func clusterJoin(c *cli.Context) error {
	args, err := arguments(c, "ADDR:PORT")
	if err != nil {
		return err
	}
	token, err := required(c, "token")
	if err != nil {
		return err
	}
	cluster, err := client(c).Join(c.Context, args[0], token)
	if err != nil {
		return err
	}
	return show(c, cluster, func(w *tabwriter.Writer) { clusterTable(w, cluster) })
}

func clusterStatus(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	cluster, err := client(c).Cluster(c.Context)
	if err != nil {
		return err
	}
	return show(c, cluster, func(w *tabwriter.Writer) { clusterTable(w, cluster) })
}

func clusterTable(w *tabwriter.Writer, cluster api.Cluster) {
	fmt.Fprintf(w, "cluster %s, mode %s\n", cluster.Name, cluster.Mode)
	fmt.Fprintln(w, "ROLE\tNAME\tADDRESS\tREACHABLE\tHEARD\tCPUS\tMEMORY\tNEEDED ALONE")
	for _, m := range cluster.Members {
		if m.Name == cluster.Self {
			fmt.Fprintf(w, "node\t%s\t%s\tthis node\t-\t%s\n", m.Name, m.Addr, capacityText(m))
			continue
		}
		fmt.Fprintf(w, "node\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Addr, reachText(m), ago(m.SeenAgo), capacityText(m))
	}
	switch x := cluster.Witness; {
	case x != nil:
		fmt.Fprintf(w, "witness\t%s\t%s\t%s\t%s\n", x.Name, x.Addr, yesNo(x.Reachable, "yes", "NO"), ago(x.SeenAgo))
	case cluster.Mode == "none":
		fmt.Fprintln(w, "\nno witness: a dead peer is reported, but nothing is started by itself (`vmctl witness add`)")
	default: // the third vote is no machine
		fmt.Fprintln(w, "\n"+modeText(cluster))
	}
}

// capacityText is what a node has, and what it would have to hold alone.
func capacityText(m api.Member) string {
	if m.Fits == nil {
		return "-\t-\t" + bytesText(m.NeededBytes)
	}
	memory := bytesText(m.MemoryBytes)
	if m.FileBytes > 0 && m.FileBytes < m.MemoryBytes {
		memory += ", tmpfs " + bytesText(m.FileBytes)
	}
	return fmt.Sprintf("%d\t%s\t%s%s", m.CPUs, memory, bytesText(m.NeededBytes), yesNo(*m.Fits, "", ", DOES NOT FIT"))
}

// reachText is whether a member is heard, and what it announced.
func reachText(m api.Member) string {
	text := yesNo(m.Reachable, "yes", "NO")
	switch m.State {
	case api.MemberMaintenance:
		text += ", in maintenance"
	case api.MemberDown:
		text += ", shut down"
	}
	return text
}

func clusterLeave(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	if err := client(c).Leave(c.Context); err != nil {
		return err
	}
	return show(c, struct{}{}, func(w *tabwriter.Writer) { fmt.Fprintln(w, "this node is in no cluster now") })
}
