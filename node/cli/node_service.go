package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func nodeMaintenance(c *cli.Context) error {
	args, err := arguments(c, "on|off")
	if err != nil {
		return err
	}
	if args[0] != "on" && args[0] != "off" {
		return wrong(c, "%q: it is on or off", args[0])
	}
	report, err := client(c).Maintenance(c.Context, args[0] == "on")
	if err != nil {
		return err
	}
	err = show(c, report, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "maintenance of %s is %s\n", report.Node, args[0])
		for _, name := range report.Moved {
			fmt.Fprintf(w, "%s\tgoes on on the peer\n", name)
		}
		for _, stay := range report.Stay {
			fmt.Fprintf(w, "%s\tSTAYS: %s\n", stay.VM, stay.Reason)
		}
		for _, stay := range report.Stopped {
			fmt.Fprintf(w, "%s\tis stopped and stays: %s\n", stay.VM, stay.Reason)
		}
	})
	if err == nil && len(report.Stay) > 0 {
		return api.Errorf(api.Conflict, "node maintenance on: %s %s on %s", count(len(report.Stay), "guest"), yesNo(len(report.Stay) == 1, "stays", "stay"), report.Node).
			WithHint("Before %s is switched off, stop what stays, or mend the reason given above and say `vmctl node maintenance on` again.", report.Node)
	}
	return err
}

func nodeShutdown(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	report, err := client(c).Shutdown(c.Context)
	if err != nil {
		return err
	}
	err = show(c, report, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s is shut down; its agent ends\n", report.Node)
		for _, name := range report.Moved {
			fmt.Fprintf(w, "%s\tgoes on on the peer\n", name)
		}
		for _, stop := range report.Stopped {
			fmt.Fprintf(w, "%s\twas stopped: %s\n", stop.VM, stop.Reason)
		}
		for _, stay := range report.Stay {
			fmt.Fprintf(w, "%s\tSTAYS: %s\n", stay.VM, stay.Reason)
		}
	})
	if err == nil && len(report.Stay) > 0 {
		return api.Errorf(api.Failed, "node shutdown: %s could not be stopped on %s", count(len(report.Stay), "guest"), report.Node).
			WithHint("`vmctl events` says more; their processes end with the host.")
	}
	return err
}

func nodeNotifyTest(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	tests, err := client(c).NotifyTest(c.Context)
	if err != nil {
		return err
	}
	err = show(c, tests, func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "TARGET\tRESULT\tTOOK")
		for _, t := range tests {
			fmt.Fprintf(w, "%s\t%s\t%.0f ms\n", t.Target, yesNo(t.OK, "delivered", "FAILED: "+t.Error), t.Millis)
		}
	})
	if err != nil {
		return err
	}
	failed := 0
	for _, t := range tests {
		if !t.OK {
			failed++
		}
	}
	if failed > 0 {
		return api.Errorf(api.Failed, "node notify-test: %d of %s did not take it", failed, count(len(tests), "target")).
			WithHint("The reason stands beside each; `notify` in the config file names them.")
	}
	return nil
}
