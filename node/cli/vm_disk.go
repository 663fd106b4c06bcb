package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
)

func vmDiskCommand() *cli.Command {
	return group("disk", "make a guest's disks larger", &cli.Command{
		Name: "resize", Usage: "make a disk larger, also while the guest runs", ArgsUsage: "NAME DISK SIZE",
		Description: "SIZE is what the disk is to have, such as 40G, or with a plus how much more, such as +10G. A disk never gets\n" +
			"smaller. A running guest sees the new size at once; its file system is its own business (growpart, resize2fs).\n\n" +
			"A protected guest's replica does not count from then on until its disks are as large and everything was compared,\n" +
			"as after a crash ('vm show' says how far that is); if its owner dies meanwhile, it is started when that is back. The\n" +
			"disk of a guest that is stopped grows on both nodes at once, or on the peer when that is back.\n\n" +
			"What one of the nodes has no room for is refused, though an image takes its space only as it is written:\n" +
			"also the new part of a preallocated qcow2 disk whose guest runs.\n\n" +
			"Examples:\n   vmctl vm disk resize till disk0 40G\n   vmctl vm disk resize till disk0 +10G",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "do it although a node has less room than the disk may take", DisableDefaultText: true}},
		Action: vmDiskResize,
	})
}

func vmDiskResize(c *cli.Context) error {
	args, err := arguments(c, "NAME", "DISK", "SIZE")
	if err != nil {
		return err
	}
	agent := client(c)
	agent.Force = c.Bool("force")
	v, err := agent.ResizeDisk(c.Context, args[0], args[1], args[2])
	if err != nil {
		return err
	}
	warn(c, v)
	return show(c, v, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "disk %s of %s is resized; protection: %s\n", args[1], v.Name, protectionText(v))
	})
}
