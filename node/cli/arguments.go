package cli

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

// arrange puts the flags of the command that args name before its arguments,
// so that `vm create web --memory 1G` and `vm create --memory 1G web` mean the
// same. Behind "--" everything is an argument.
func arrange(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out := []string{args[0]}
	flags, commands := app.Flags, app.Commands
	rest := args[1:]
	for len(rest) > 0 {
		if n := flagLength(flags, rest); n > 0 {
			out, rest = append(out, rest[:n]...), rest[n:]
			continue
		}
		command := find(commands, rest[0])
		if command == nil {
			break
		}
		out, rest = append(out, rest[0]), rest[1:]
		flags, commands = command.Flags, command.Subcommands
	}
	var arguments []string
	for len(rest) > 0 {
		if rest[0] == "--" {
			arguments = append(arguments, rest[1:]...)
			break
		}
		if n := flagLength(flags, rest); n > 0 {
			out, rest = append(out, rest[:n]...), rest[n:]
			continue
		}
		arguments, rest = append(arguments, rest[0]), rest[1:]
	}
	if slices.ContainsFunc(arguments, func(a string) bool { return strings.HasPrefix(a, "-") }) {
		out = append(out, "--")
	}
	return append(out, arguments...)
}

// flagLength is how many of the next words a flag takes: none if it is no flag.
func flagLength(flags []cli.Flag, words []string) int {
	word := words[0]
	if len(word) < 2 || word[0] != '-' || word == "--" {
		return 0
	}
	if strings.Contains(word, "=") {
		return 1
	}
	name := strings.TrimLeft(word, "-")
	for _, flag := range flags {
		if !slices.Contains(flag.Names(), name) {
			continue
		}
		if _, isBool := flag.(*cli.BoolFlag); isBool || len(words) == 1 {
			return 1
		}
		return 2
	}
	return 1 // unknown, help or version: the parser says what is wrong with it
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, command := range commands {
		if command.HasName(name) {
			return command
		}
	}
	return nil
}

// arguments checks how many a command got and returns them.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	if c.NArg() != len(names) {
		return nil, api.Errorf(api.Usage, "%s: %d arguments given, %d needed (%s)",
			c.Command.HelpName, c.NArg(), len(names), strings.Join(names, ", ")).
			WithHint("See `%s --help`.", c.Command.HelpName)
	}
	return c.Args().Slice(), nil
}
