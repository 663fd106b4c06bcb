package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func vmVerifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "compare a guest's disks with its replica while it runs, and repair", ArgsUsage: "NAME",
		Description: "Everything is compared by hash. A replica that differs does not count any more until it is\n" +
			"repaired. Exit code 0 if it was equal, 1 if it had to be repaired. With --output json the\n" +
			"progress and the outcome are one JSON object a line.",
		Action: vmVerify,
	}
}

func vmVerify(c *cli.Context) error {
	args, err := arguments(c, "NAME")
	if err != nil {
		return err
	}
	lines := json.NewEncoder(c.App.Writer)
	live := isTerminal(c.App.ErrWriter)
	v, err := client(c).Verify(c.Context, args[0], func(v api.Verification) error {
		switch {
		case asJSON(c):
			return lines.Encode(v)
		case live && !v.Over():
			fmt.Fprintf(c.App.ErrWriter, "\r%-70s\r", verifyProgress(v))
		case live:
			fmt.Fprintf(c.App.ErrWriter, "\r%-70s\r", "")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !asJSON(c) {
		w := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
		fmt.Fprintf(w, "%s: %s\n", v.VM, verifiedText(v))
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if v.State == api.VerifyRepaired {
		return api.Errorf(api.Failed, "the replica of %s differed from its disks and was repaired", v.VM).
			WithHint("`vmctl events --vm %s` says where. Look for a failing disk or memory on either host.", v.VM)
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func verifyProgress(v api.Verification) string {
	if v.State == api.VerifyRepairing {
		return fmt.Sprintf("%s differs and is repaired: %s sent", v.VM, bytesText(v.RepairedBytes))
	}
	return fmt.Sprintf("%s: %s of %s compared", v.VM, bytesText(v.ComparedBytes), bytesText(v.TotalBytes))
}

// verifiedText is the outcome of a verification.
func verifiedText(v api.Verification) string {
	text := fmt.Sprintf("%s, %s compared", v.State, bytesText(v.ComparedBytes))
	if v.State == api.VerifyRepaired {
		text = fmt.Sprintf("it differed, %s repaired", bytesText(v.RepairedBytes))
	}
	if v.UnsettledBytes > 0 {
		text += fmt.Sprintf(", %s written too often to be judged", bytesText(v.UnsettledBytes))
	}
	return text
}

// verifiedLine is how `vm show` has it.
func verifiedLine(v *api.Verification) string {
	if v == nil {
		return "never"
	}
	return v.Time.Local().Format(time.DateTime) + ", " + verifiedText(*v)
}
