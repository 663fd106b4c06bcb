package cli

import (
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"vmctl/node"
	"vmctl/node/api"
)

func nodeCommand() *cli.Command {
	return group("node", "run and look at this host's agent",
		&cli.Command{
			Name: "run", Usage: "run the agent in the foreground; guests run on when it stops",
			Description: "The config file has the flags' words without the dashes, such as\n" +
				"   listen: 10.0.0.1:7440\n   accel: kvm\n\n" +
				"and says who hears of events and alarms (notify), see the one in /etc/vmctl. What they have not got when\n" +
				"the agent ends or is killed, or its host loses power, they get from the next one, if it is still in the log\n" +
				"(20,000 events). What they got in the last half minute before a crash may come twice, with the same id.\n\n" +
				"Examples:\n   vmctl node run --listen 10.0.0.1:7440\n" +
				"   vmctl node run --name b --listen 127.0.0.1:7450 --state-dir /tmp/b --runtime-dir /tmp/b/run",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "name", Usage: "this node's `NAME`; default: the host's name"},
				&cli.StringFlag{Name: "state-dir", Value: DefaultStateDir, Usage: "`DIR` of disks and the database"},
				&cli.StringFlag{Name: "runtime-dir", Value: DefaultRuntimeDir, Usage: "`DIR` of sockets; keep its path short"},
				&cli.StringFlag{Name: "ram-dir", Usage: "`DIR` of guests' memory, on a tmpfs (nothing else is taken); default: /dev/shm/vmctl-NAME"},
				&cli.StringFlag{Name: "listen", Usage: "`ADDR:PORT` for the peer; without it this node stays alone"},
				&cli.StringFlag{Name: "advertise", Usage: "`ADDR:PORT` told to the peer, if not that of --listen"},
				&cli.StringFlag{Name: "accel", Value: "auto", Usage: "accelerator `NAME`: auto, kvm or tcg"},
				&cli.StringFlag{Name: "watchdog", Usage: "`DEVICE` that resets this host if a guest could outlive its lease here; default: none"},
				&cli.StringFlag{Name: "guest-memory", Usage: "memory `SIZE` that guests and replicas may take, without copies of pages kept for checkpoints; default: all of the host's"},
				&cli.StringFlag{Name: "memory-reserve", Usage: "memory `SIZE` left free: rather than take it, guests go without checkpoints; default: a twentieth, 256M to 2G"},
				&cli.StringFlag{Name: "config", Usage: "YAML `FILE` with the same words; flags win over it"},
				&cli.BoolFlag{Name: "verbose", Usage: "log more", DisableDefaultText: true},
			},
			Action: nodeRun,
		},
		&cli.Command{Name: "status", Usage: "show this node", Action: nodeStatus},
		&cli.Command{
			Name: "maintenance", Usage: "give this node's guests to the peer before work on it, or take guests again", ArgsUsage: "on|off",
			Description: "A guest at protection resume goes on there at once; one at restart is shut down and booted there.\n" +
				"What is not protected stays, and is listed with the reason. Only guests with failback when-synced come\n" +
				"back by themselves when maintenance is over.\n\n" +
				"It lasts over reboots. The peer is told: it shows \"protection is reduced\" instead of an alarm when this\n" +
				"node is away. Nobody hands a guest to a node in maintenance, and none is made or started there; only when\n" +
				"its peer dies does it take over what it can, for nobody else could.",
			Action: nodeMaintenance,
		},
		&cli.Command{
			Name: "shutdown", Usage: "hand over or stop this node's guests, then end the agent",
			Description: "For hosts without systemd, before they are switched off. With systemd a shutdown or reboot of the host does\n" +
				"the same by itself. Protected guests go on on the peer; the others are asked to shut down, and are ended after a\n" +
				"minute. What was stopped here starts again with the next agent.",
			Action: nodeShutdown,
		},
		&cli.Command{
			Name: "notify-test", Usage: "send a test notification to every target of the config file, once, and say what became of it",
			Action: nodeNotifyTest,
		},
	)
}

func nodeRun(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	config, err := nodeConfig(c)
	if err != nil {
		return err
	}
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }()
	return node.Run(c.Context, config, func(n *node.Node) {
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=serving as "+n.Name())
		config.Log.Info("agent is ready", "name", n.Name(), "socket", n.Socket())
		feedWatchdog(c, n)
	})
}

// feedWatchdog tells systemd that the agent works, as long as its lease core
// answers.
func feedWatchdog(c *cli.Context, n *node.Node) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	go func() { // ends with the process's context
		ticker := time.NewTicker(interval / 3)
		defer ticker.Stop()
		for {
			select {
			case <-c.Context.Done():
				return
			case <-ticker.C:
			}
			if n.Healthy(c.Context, interval/3) {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		}
	}()
}

// nodeConfig puts defaults, the config file and flags together.
func nodeConfig(c *cli.Context) (node.Config, error) {
	var config node.Config
	if file := c.String("config"); file != "" {
		var err error
		if config, err = node.ReadConfig(file); err != nil {
			return config, err
		}
	}
	for name, field := range map[string]*string{
		"name": &config.Name, "state-dir": &config.StateDir, "runtime-dir": &config.RuntimeDir, "ram-dir": &config.RAMDir,
		"listen": &config.Listen, "advertise": &config.Advertise, "accel": &config.Accel, "watchdog": &config.Watchdog, "guest-memory": &config.GuestMemory,
		"memory-reserve": &config.MemoryReserve,
	} {
		if c.IsSet(name) || *field == "" {
			*field = c.String(name)
		}
	}
	config.Version, config.Log = version, logger(c)
	return config, nil
}

// logger writes text to standard error; the journal adds the time where there
// is one, but a terminal or a file has none.
func logger(c *cli.Context) *slog.Logger {
	level := slog.LevelInfo
	if c.Bool("verbose") {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level}))
}

func nodeStatus(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	status, err := client(c).Status(c.Context)
	if err != nil {
		return err
	}
	return show(c, status.Node, func(w *tabwriter.Writer) { nodeScreen(w, status.Node) })
}

func nodeScreen(w *tabwriter.Writer, n api.Node) {
	fmt.Fprintf(w, "name\t%s\nversion\t%s\nprocess\t%d, since %s\n", n.Name, n.Version, n.PID, n.Started.Local().Format(time.DateTime))
	fmt.Fprintf(w, "listens\t%s\naccelerator\t%s\nQEMU\t%s\n", yesNo(n.Listen != "", n.Listen, "nowhere: no peer possible"), n.Accel, n.QEMU)
	fmt.Fprintf(w, "host\t%s, %s\nguests\t%d\nmaintenance\t%s\n", count(n.CPUs, "CPU"), bytesText(n.MemoryBytes), n.Guests, yesNo(n.Maintenance, "on", "off"))
	for _, alarm := range n.Alarms {
		fmt.Fprintf(w, "alarm\t%s: %s\n", strings.TrimSpace(alarm.Kind+" "+alarm.VM), alarm.Text)
	}
	for _, t := range n.Notify {
		fmt.Fprintf(w, "notifies\t%s\n", notifyText(t))
	}
}

// notifyText is how a target of notifications fares.
func notifyText(t api.NotifyTarget) string {
	text := fmt.Sprintf("%s: %d delivered", t.Target, t.Delivered)
	if t.Waiting > 0 {
		text += fmt.Sprintf(", %d WAIT", t.Waiting)
	}
	if t.Lost > 0 {
		text += fmt.Sprintf(", %d LOST", t.Lost)
	}
	if t.Failing != nil {
		text += ", fails since " + t.Failing.Local().Format(time.DateTime)
	}
	if t.Error != "" {
		text += ": " + t.Error
	}
	return text
}
