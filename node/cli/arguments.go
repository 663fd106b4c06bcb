package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
)

// completion is the last word that a shell adds to ask for what may follow.
const completion = "--generate-bash-completion"

// arrange puts flags where the parser wants them, so that they may stand
// before or after the arguments: the program's own first, then those of the
// command that args name, then its arguments. Behind "--" everything is an
// argument. A command's flag that is given twice is refused: which of the two was
// meant is not known.
func arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) == 0 || args[len(args)-1] == completion {
		return args, nil
	}
	words := sorter{global: app.Flags, command: app.Flags, out: args[:1:1]}
	rest, commands := args[1:], app.Commands
	for len(rest) > 0 && rest[0] != "--" {
		if strings.HasPrefix(rest[0], "-") && len(rest[0]) > 1 {
			if rest = words.flag(rest); rest == nil {
				return words.broken, nil
			}
			continue
		}
		command := find(commands, rest[0])
		switch {
		case command != nil && len(words.arguments) == 0:
			words.names, words.path = append(words.names, rest[0]), append(words.path, rest[0])
			words.command, commands = command.Flags, command.Subcommands
		default:
			words.arguments, commands = append(words.arguments, rest[0]), nil
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		words.arguments = append(words.arguments, rest[1:]...)
	}
	return words.arranged(), words.once()
}

// sorter collects the words of a command line by what they are.
type sorter struct {
	global, command []cli.Flag // that are known where we are

	out       []string // the program and its flags
	names     []string // commands and their flags
	path      []string // commands
	arguments []string
	broken    []string // what to parse if a flag lacks its value
	given     []string // the command's flags that take one value, by their first names
}

// once refuses a command line that gives a flag twice. The program's own may be:
// one in an alias gives way to one that is typed.
func (s *sorter) once() error {
	for i, flag := range s.given {
		if slices.Contains(s.given[:i], flag) {
			command := strings.Join(append([]string{"vmctl"}, s.path...), " ")
			return api.Errorf(api.Usage, "%s: --%s is given twice", command, flag).WithHint("Give it once; see `%s --help`.", command)
		}
	}
	return nil
}

// flag takes the flag that words begin with and returns what follows, nil if
// its value is missing: an argument must not be taken for it.
func (s *sorter) flag(words []string) []string {
	target, length := &s.names, 1 // unknown, help or version: the parser says what is wrong with it
	if flag := findFlag(s.command, words[0]); flag != nil {
		length = flagLength(flag, words[0])
		if _, list := flag.(*cli.StringSliceFlag); !list && len(s.names) > 0 {
			s.given = append(s.given, flag.Names()[0])
		}
	} else if flag := findFlag(s.global, words[0]); flag != nil {
		target, length = &s.out, flagLength(flag, words[0])
	}
	if len(s.names) == 0 {
		target = &s.out
	}
	if length > len(words) {
		if s.broken = append(s.out, words[0]); target == &s.names {
			s.broken = append(append(s.out, s.names...), words[0])
		}
		return nil
	}
	*target = append(*target, words[:length]...)
	return words[length:]
}

func (s *sorter) arranged() []string {
	out := append(s.out, s.names...)
	if slices.ContainsFunc(s.arguments, func(a string) bool { return strings.HasPrefix(a, "-") }) {
		out = append(out, "--")
	}
	return append(out, s.arguments...)
}

func findFlag(flags []cli.Flag, word string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, flag := range flags {
		if slices.Contains(flag.Names(), name) {
			return flag
		}
	}
	return nil
}

// flagLength is how many words a flag takes.
func flagLength(flag cli.Flag, word string) int {
	if _, isBool := flag.(*cli.BoolFlag); isBool || strings.Contains(word, "=") {
		return 1
	}
	return 2
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
	given := c.Args().Slice()
	switch {
	case len(given) > len(names):
		return nil, wrong(c, "too many arguments: %q", given[len(names):])
	case len(given) < len(names):
		return nil, wrong(c, "%s is missing", strings.Join(names[len(given):], ", "))
	}
	for i, argument := range given {
		if argument == "" {
			return nil, wrong(c, "%s is empty", names[i])
		}
	}
	return given, nil
}

// required returns the value of a flag that must be given.
func required(c *cli.Context, flag string) (string, error) {
	value := c.String(flag)
	if value == "" {
		return "", wrong(c, "--%s is missing", flag)
	}
	return value, nil
}

// span returns the value of a flag that is a time not below zero.
func span(c *cli.Context, flag string) (time.Duration, error) {
	value := c.Duration(flag)
	if value < 0 {
		return 0, wrong(c, "--%s %s is below zero", flag, value)
	}
	return value, nil
}

// wrong is a wrong usage of the command of c.
func wrong(c *cli.Context, format string, args ...any) error {
	return api.Errorf(api.Usage, c.Command.HelpName+": "+format, args...).WithHint("See `%s --help`.", c.Command.HelpName)
}
