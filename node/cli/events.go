package cli

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name:  "events",
		Usage: "what happened, oldest first; one JSON object a line with --output json",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new events until Ctrl-C", DisableDefaultText: true},
			&cli.DurationFlag{Name: "since", Usage: "only those of the last `TIME`, such as 10m or 24h", DefaultText: "all"},
			&cli.StringFlag{Name: "vm", Usage: "only those about the guest `NAME`"},
		},
		Description:  "Examples:\n   vmctl events --since 1h --vm web\n   vmctl events --follow --output json",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			filter := api.EventFilter{VM: c.String("vm"), Follow: c.Bool("follow")}
			back, err := span(c, "since")
			if err != nil {
				return err
			}
			if back > 0 {
				filter.Since = time.Now().Add(-back)
			}
			lines := json.NewEncoder(c.App.Writer)
			w := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
			err = client(c).Events(c.Context, filter, func(e api.Event) error {
				if asJSON(c) {
					return lines.Encode(e)
				}
				eventLine(w, e)
				return w.Flush()
			})
			if c.Context.Err() != nil && filter.Follow {
				return nil
			}
			return err
		},
	}
}

func eventLine(w *tabwriter.Writer, e api.Event) {
	fmt.Fprintf(w, "%s  %-8s %-8s %-18s %-12s %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Node, e.Severity, e.Kind, e.VM, e.Message)
}
