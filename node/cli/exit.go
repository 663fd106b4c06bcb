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

// interrupted is the exit code of a command that a signal ended, as a shell
// says it.
const interrupted = 130

// exitCodes is the one place that turns a class of failure into an exit code.
var exitCodes = map[api.Code]int{
	api.Failed:      1,
	api.Usage:       2,
	api.NotFound:    3,
	api.Conflict:    4,
	api.Unreachable: 5,
	api.Unsafe:      6,
}

// report prints a failure and returns the exit code. A class that is not known
// (a newer agent's) is a failure like any.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		return interrupted
	}
	e := api.AsError(err)
	if errors.Is(err, vm.ErrBadSpec) {
		e = &api.Error{Code: api.Usage, Message: err.Error()}
	}
	message := e.Message
	if message == "" {
		message = "it failed, and nothing says why"
	}
	fmt.Fprintf(stderr, "vmctl: %s\n", message)
	if e.Hint != "" {
		fmt.Fprintf(stderr, "  %s\n", e.Hint)
	}
	if code, known := exitCodes[e.Code]; known {
		return code
	}
	return exitCodes[api.Failed]
}

// usageError says what the parser found, in our words.
func usageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		return wrong(c, "there is no flag --%s", name)
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return wrong(c, "--%s needs a value", name)
	}
	return wrong(c, "%s", strings.Replace(text, " for flag -", " for flag --", 1))
}

// unknownCommand is what a group does without one of its commands.
func unknownCommand(c *cli.Context) error {
	if c.Args().Present() {
		return wrong(c, "there is no command %q", c.Args().First())
	}
	if len(c.Lineage()) <= 1 || c.Command.Name == c.App.Name {
		return cli.ShowAppHelp(c)
	}
	var names []string
	for _, command := range c.Command.Subcommands {
		if !command.Hidden {
			names = append(names, command.Name)
		}
	}
	return wrong(c, "a command is missing: one of %s", strings.Join(names, ", "))
}

// checkOutput takes an empty word, as an empty environment variable gives it,
// for one that was not said.
func checkOutput(c *cli.Context) error {
	for flag, value := range map[string]string{"output": "table", "socket": DefaultRuntimeDir + "/" + socketName} {
		if c.String(flag) == "" {
			if err := c.Set(flag, value); err != nil {
				return err
			}
		}
	}
	if output := c.String("output"); output != "table" && output != "json" {
		return wrong(c, "--output %q: it is table or json", output)
	}
	return nil
}
