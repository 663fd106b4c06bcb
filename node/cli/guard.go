package cli

import (
	"github.com/urfave/cli/v2"

	"vmctl/vm/guard"
)

// guardCommand is the process that is QEMU's parent. The agent starts it;
// people do not.
func guardCommand() *cli.Command {
	return &cli.Command{
		Name: "guard", Hidden: true, HideHelpCommand: true, ArgsUsage: "CONFIG", OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "CONFIG")
			if err != nil {
				return err
			}
			return guard.Main(c.Context, args[0], logger(c))
		},
	}
}
