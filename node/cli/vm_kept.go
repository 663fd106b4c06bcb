package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func vmKeptCommand() *cli.Command {
	return &cli.Command{
		Name: "kept", Usage: "list, or remove, disks as a former owner wrote them last", ArgsUsage: "NAME",
		Description: "A node whose guest was taken over, and that comes back, keeps the guest's disks as it wrote them last: they may\n" +
			"hold writes that the peer never had. They are removed by themselves when the replica is complete, two newer ones\n" +
			"are kept and a week has gone by (kept-copies and kept-for in the config file), and the event log says so.\n\n" +
			"Examples:\n   vmctl vm kept till\n   vmctl vm kept till --rm 3",
		Flags:  []cli.Flag{&cli.Uint64Flag{Name: "rm", Usage: "remove those of `EPOCH`, on whichever node they are", DefaultText: "none"}},
		Action: vmKept,
	}
}

func vmKept(c *cli.Context) error {
	args, err := arguments(c, "NAME")
	if err != nil {
		return err
	}
	if c.IsSet("rm") {
		if err := client(c).RemoveKept(c.Context, args[0], c.Uint64("rm"), false); err != nil {
			return err
		}
		return show(c, struct{}{}, func(w *tabwriter.Writer) {
			fmt.Fprintf(w, "the kept disks of %s of epoch %d are removed\n", args[0], c.Uint64("rm"))
		})
	}
	v, err := client(c).VM(c.Context, args[0])
	if err != nil {
		return err
	}
	kept := append([]api.Kept{}, v.Kept...)
	return show(c, kept, func(w *tabwriter.Writer) {
		if len(kept) == 0 {
			fmt.Fprintf(w, "no disks of a former owner of %s are kept\n", args[0])
			return
		}
		fmt.Fprintln(w, "NODE\tEPOCH\tSINCE\tSPACE\tPATH")
		for _, k := range kept {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", k.Node, k.Epoch, k.Since.Local().Format(time.DateTime), bytesText(k.Bytes), k.Path)
		}
	})
}

func keptText(k api.Kept) string {
	return fmt.Sprintf("disks of epoch %d on %s since %s, %s, in %s", k.Epoch, k.Node, k.Since.Local().Format(time.DateTime), bytesText(k.Bytes), k.Path)
}
