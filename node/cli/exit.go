package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
	"vmctl/vm"
)

// exitCodes is the one place that turns a class of failure into an exit code.
var exitCodes = map[api.Code]int{
	api.Failed:      1,
	api.Usage:       2,
	api.NotFound:    3,
	api.Conflict:    4,
	api.Unreachable: 5,
	api.Unsafe:      6,
}

// report prints a failure and returns the exit code.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		return 130 // interrupted, as a shell says it
	}
	e := api.AsError(err)
	if errors.Is(err, vm.ErrBadSpec) {
		e = &api.Error{Code: api.Usage, Message: err.Error()}
	}
	if e.Message != "" {
		fmt.Fprintf(stderr, "vmctl: %s\n", e.Message)
	}
	if e.Hint != "" {
		fmt.Fprintf(stderr, "  %s\n", e.Hint)
	}
	return exitCodes[e.Code]
}

func usageError(c *cli.Context, err error, _ bool) error {
	return api.Errorf(api.Usage, "%s: %v", c.Command.FullName(), err).
		WithHint("See `%s --help`.", c.Command.HelpName)
}

// unknownCommand is what a group does without one of its commands.
func unknownCommand(c *cli.Context) error {
	if c.Args().Present() {
		return api.Errorf(api.Usage, "no such command: %s", strings.TrimSpace(c.Command.HelpName+" "+c.Args().First())).
			WithHint("See `%s --help`.", c.Command.HelpName)
	}
	if len(c.Lineage()) > 1 && c.Command.Name != c.App.Name && len(c.Command.Subcommands) > 0 {
		return cli.ShowSubcommandHelp(c)
	}
	return cli.ShowAppHelp(c)
}

func checkOutput(c *cli.Context) error {
	if output := c.String("output"); output != "table" && output != "json" {
		return api.Errorf(api.Usage, "--output %q: it is table or json", output)
	}
	return nil
}
