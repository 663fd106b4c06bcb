package cli

import (
	"github.com/urfave/cli/v2"

	"vmctl/node"
	"vmctl/vm/guard/watchdog"
)

// watchdogCommand is the process that feeds the host's watchdog. The agent starts
// it; people do not.
func watchdogCommand() *cli.Command {
	return &cli.Command{
		Name: "watchdog", Hidden: true, HideHelpCommand: true, ArgsUsage: "DEVICE SOCKET", OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "DEVICE", "SOCKET")
			if err != nil {
				return err
			}
			return watchdog.Main(c.Context, watchdog.Config{
				Device: args[0], Socket: args[1], Stop: node.WatchdogStop(), Open: watchdog.Open, Log: logger(c),
			})
		},
	}
}
