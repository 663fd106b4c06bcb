package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
	"vmctl/node/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "check this host and say what to do",
		Description: "It needs no agent and changes nothing. Exit code 0 if guests can run here, also if\n" +
			"something could be better; 1 if they cannot.",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			findings := doctor.Examine(c.Context)
			err := show(c, findings, func(w *tabwriter.Writer) {
				for _, f := range findings {
					fmt.Fprintf(w, "%s\t%s\t%s\n", f.Grade, f.Subject, f.Found)
					if f.Advice != "" {
						fmt.Fprintf(w, "\t\t-> %s\n", f.Advice)
					}
				}
			})
			if err != nil {
				return err
			}
			for _, f := range findings {
				if f.Grade == doctor.Bad {
					return api.Errorf(api.Failed, "this host cannot run guests yet: %s", f.Found)
				}
			}
			return nil
		},
	}
}
