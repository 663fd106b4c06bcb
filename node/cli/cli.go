package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is set by the linker.
var version = "dev"

// DefaultRuntimeDir holds the sockets; DefaultStateDir everything that must
// outlive a reboot.
const (
	DefaultRuntimeDir = "/run/vmctl"
	DefaultStateDir   = "/var/lib/vmctl"
	socketName        = "vmctl.sock"
)

// Main runs the command line and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	app := newApp(stdin, stdout, stderr)
	words, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, words)
	}
	return report(err, stderr)
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:    "vmctl",
		Usage:   "virtual machines that go on running when a host dies",
		Version: version,
		Description: "Two hosts, a cable, one binary. A protected guest is checkpointed to the peer and\n" +
			"resumed there, with its memory, devices and disks as of one instant, when its host dies.\n\n" +
			"Results go to standard output, messages to standard error. --socket and --output may stand\n" +
			"behind the command too.\n\n" +
			"Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not found; 4 conflict with the present\n" +
			"state; 5 node unreachable; 6 refused for safety.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Value: DefaultRuntimeDir + "/" + socketName, EnvVars: []string{"VMCTL_SOCKET"}, Usage: "`PATH` of the agent's socket"},
			&cli.StringFlag{Name: "output", Value: "table", EnvVars: []string{"VMCTL_OUTPUT"}, Usage: "`FORM` of results: table or json"},
		},
		Before: checkOutput,
		Commands: []*cli.Command{
			nodeCommand(), clusterCommand(), witnessCommand(), vmCommand(), haCommand(),
			eventsCommand(), statusCommand(), doctorCommand(), guardCommand(), porterCommand(), watchdogCommand(),
		},
		Reader:                 stdin,
		Writer:                 stdout,
		ErrWriter:              stderr,
		HideHelpCommand:        true,
		UseShortOptionHandling: false,
		EnableBashCompletion:   true,
		// Values have commas in them.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // report does it
		OnUsageError:              usageError,
		CommandNotFound:           nil,
		Action:                    unknownCommand,
	}
}

// group is a command that only holds others.
func group(name, usage string, commands ...*cli.Command) *cli.Command {
	for _, command := range commands {
		command.OnUsageError = usageError
	}
	return &cli.Command{
		Name: name, Usage: usage, Subcommands: commands, HideHelpCommand: true,
		OnUsageError: usageError, Action: unknownCommand,
	}
}
