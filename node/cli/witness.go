package cli

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"vmctl/node/api"
	"vmctl/node/witness"
	"vmctl/node/witness/porter"
)

const (
	defaultWitnessDir    = "/var/lib/vmctl-witness"
	defaultWitnessListen = ":7441"
)

func witnessCommand() *cli.Command {
	stateDir := &cli.StringFlag{Name: "state-dir", Value: defaultWitnessDir, Usage: "`DIR` of votes and identity"}
	return group("witness", "the third vote, on any third machine",
		&cli.Command{
			Name: "run", Usage: "run a witness in the foreground; one serves any number of clusters",
			Description: "It holds votes, never guests, and needs next to nothing. Put it where neither node's failure\n" +
				"takes it along: on a third machine, even a small one far away.\n\n" +
				"Examples:\n   vmctl witness run\n   vmctl witness token        (prints what `vmctl witness add` on a node asks for)",
			Flags: []cli.Flag{
				stateDir,
				&cli.StringFlag{Name: "listen", Value: defaultWitnessListen, Usage: "`ADDR:PORT` for the nodes"},
				&cli.StringFlag{Name: "name", Usage: "this witness's `NAME`; default: the host's name"},
			},
			Action: witnessRun,
		},
		&cli.Command{
			Name: "token", Usage: "on the witness: print the token that enrols the next cluster",
			Flags: []cli.Flag{stateDir}, Action: witnessToken,
		},
		&cli.Command{
			Name: "add", Usage: "make the witness at ADDR:PORT this cluster's third vote", ArgsUsage: "ADDR:PORT",
			Flags:  []cli.Flag{&cli.StringFlag{Name: "token", Usage: "the `TOKEN` that `vmctl witness token` printed there"}},
			Action: witnessAdd,
		},
		&cli.Command{Name: "remove", Usage: "go without a third vote; nothing takes over by itself then", Action: witnessRemove},
		&cli.Command{Name: "status", Usage: "show this cluster's witness", Action: witnessStatus},
	)
}

func witnessRun(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	name := c.String("name")
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return api.Errorf(api.Usage, "find this machine's name: %v", err).WithHint("Give one with --name.")
		}
		name = host
	}
	witness.Lean()
	config := witness.Config{
		Name: name, StateDir: c.String("state-dir"), Listen: c.String("listen"), Lean: true, Porter: porterLine(c), Log: logger(c),
	}
	return witness.Run(c.Context, config, func(addr string) {
		config.Log.Info("witness is ready", "name", name, "listen", addr)
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	})
}

// porterLine starts this very program again, even if its file is another's by now.
func porterLine(c *cli.Context) porter.Command {
	args := []string{"vmctl"}
	if c.Bool("verbose") {
		args = append(args, "--verbose")
	}
	return porter.Command{Path: "/proc/self/exe", Args: append(args, "porter"), Env: os.Environ()}
}

// porterCommand is the process that makes a witness's handshakes. The witness
// starts it; people do not.
func porterCommand() *cli.Command {
	return &cli.Command{
		Name: "porter", Hidden: true, HideHelpCommand: true, OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return porter.Main(c.Context, logger(c))
		},
	}
}

func witnessToken(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	token, err := witness.ReadToken(c.String("state-dir"))
	if err != nil {
		return api.Errorf(api.NotFound, "%v", err).WithHint("Is this the witness's machine, and has it run? --state-dir names its directory.")
	}
	return show(c, map[string]string{"token": token}, func(w *tabwriter.Writer) { fmt.Fprintln(w, token) })
}

func witnessAdd(c *cli.Context) error {
	args, err := arguments(c, "ADDR:PORT")
	if err != nil {
		return err
	}
	token, err := required(c, "token")
	if err != nil {
		return err
	}
	added, err := client(c).AddWitness(c.Context, args[0], token)
	if err != nil {
		return err
	}
	return show(c, added, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "witness %s at %s is the third vote\n", added.Name, added.Addr)
	})
}

func witnessRemove(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	if err := client(c).RemoveWitness(c.Context); err != nil {
		return err
	}
	return show(c, struct{}{}, func(w *tabwriter.Writer) {
		fmt.Fprintln(w, "no witness; a dead node's guests must be promoted by hand")
	})
}

func witnessStatus(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	cluster, err := client(c).Cluster(c.Context)
	if err != nil {
		return err
	}
	if cluster.Witness == nil {
		return api.Errorf(api.NotFound, "cluster %s has no witness", cluster.Name).WithHint("`vmctl witness add ADDR:PORT --token T`")
	}
	x := *cluster.Witness
	return show(c, x, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "witness %s at %s: %s, %s\n", x.Name, x.Addr, yesNo(x.Reachable, "reachable", "NOT REACHABLE"), heard(x.SeenAgo))
	})
}
