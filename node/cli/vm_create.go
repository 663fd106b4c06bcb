package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"vmctl/node/api"
)

// specFlags are the flags that describe a guest; each has the word of the spec
// file.
func specFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "cpus", Usage: "virtual `CPUS`"},
		&cli.StringFlag{Name: "memory", Usage: "memory `SIZE`, such as 512M or 2GiB"},
		&cli.StringSliceFlag{Name: "disk", Usage: "a disk: `size=10G[,name=N][,format=raw|qcow2][,image=FILE]` or path=FILE; may be repeated"},
		&cli.StringSliceFlag{Name: "nic", Usage: "a network card: `user[,forward=tcp:127.0.0.1:8080:80]`, bridge=BR or tap=TAP, [,mac=M]; may be repeated"},
		&cli.StringFlag{Name: "kernel", Usage: "boot this kernel `FILE` directly"},
		&cli.StringFlag{Name: "initrd", Usage: "initial RAM disk `FILE`"},
		&cli.StringFlag{Name: "append", Usage: "kernel command `LINE`"},
		&cli.StringFlag{Name: "machine", Usage: "QEMU machine `TYPE`"},
		&cli.StringFlag{Name: "cpu", Usage: "QEMU CPU `MODEL`"},
		&cli.StringFlag{Name: "accel", Usage: "`auto`, kvm or tcg"},
		&cli.StringFlag{Name: "protection", Usage: "`LEVEL`: none, restart or resume"},
		&cli.Float64Flag{Name: "interval", Usage: "`SECONDS` between two checkpoints"},
		&cli.StringFlag{Name: "restart", Usage: "when the guest ends here: `never`, on-failure or always"},
		&cli.BoolFlag{Name: "autostart", Usage: "start it when the node starts"},
	}
}

func vmCreateCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "make a guest", ArgsUsage: "NAME | -f FILE",
		Description: "Example: vmctl vm create web --memory 1G --disk image=debian.qcow2 --nic bridge=br0 --protection resume --start",
		Flags: append(specFlags(),
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "read the spec from a YAML `FILE`, - for standard input"},
			&cli.BoolFlag{Name: "start", Usage: "start it at once"}),
		Action: vmCreate,
	}
}

func vmCreate(c *cli.Context) error {
	spec, err := wantedSpec(c)
	if err != nil {
		return err
	}
	v, err := client(c).Create(c.Context, spec)
	if err != nil {
		return err
	}
	if c.Bool("start") {
		if v, err = client(c).Act(c.Context, v.Name, api.Start, 0); err != nil {
			return err
		}
	}
	return show(c, v, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s made, %s\n", v.Name, v.State) })
}

func wantedSpec(c *cli.Context) ([]byte, error) {
	if file := c.String("file"); file != "" {
		if c.NArg() != 0 {
			return nil, api.Errorf(api.Usage, "vm create: give a NAME or -f FILE, not both")
		}
		return readFile(c, file)
	}
	args, err := arguments(c, "NAME")
	if err != nil {
		return nil, err
	}
	fields, err := specFields(c)
	if err != nil {
		return nil, err
	}
	fields["name"] = args[0]
	return yaml.Marshal(fields)
}

func readFile(c *cli.Context, file string) ([]byte, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(io.LimitReader(c.App.Reader, 1<<20))
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, api.Errorf(api.Usage, "read the spec: %v", err)
	}
	return data, nil
}

// specFields turns the flags that were given into fields of the spec file, so
// that one strict parser judges both.
func specFields(c *cli.Context) (map[string]any, error) {
	fields := map[string]any{}
	for _, name := range []string{"cpus", "memory", "kernel", "initrd", "append", "machine", "cpu", "accel", "autostart"} {
		if c.IsSet(name) {
			fields[name] = c.Value(name)
		}
	}
	protection := map[string]any{}
	if c.IsSet("protection") {
		protection["level"] = c.String("protection")
	}
	if c.IsSet("interval") {
		protection["interval_seconds"] = c.Float64("interval")
	}
	if len(protection) > 0 {
		fields["protection"] = protection
	}
	if c.IsSet("restart") {
		fields["restart"] = map[string]any{"policy": c.String("restart")}
	}
	for _, list := range []struct{ flag, field string }{{"disk", "disks"}, {"nic", "nics"}} {
		var items []map[string]any
		for _, text := range c.StringSlice(list.flag) {
			item, err := parseItem(list.flag, text)
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		if items != nil {
			fields[list.field] = items
		}
	}
	return fields, nil
}

// parseItem reads "key=value,key=value". A first word without "=" is a disk's
// size or a network card's type.
func parseItem(flag, text string) (map[string]any, error) {
	item := map[string]any{}
	for i, part := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok && i == 0 {
			key, value = map[string]string{"disk": "size", "nic": "type"}[flag], part
		} else if !ok {
			return nil, api.Errorf(api.Usage, "--%s %s: %q is not key=value", flag, text, part)
		}
		switch {
		case key == "forward":
			list, _ := item[key].([]string)
			item[key] = append(list, value)
		case item[key] != nil:
			return nil, api.Errorf(api.Usage, "--%s %s: %s is given twice", flag, text, key)
		case value == "":
			return nil, api.Errorf(api.Usage, "--%s %s: %s has no value", flag, text, key)
		default:
			item[key] = value
		}
	}
	if flag == "disk" && item["preallocate"] != nil {
		item["preallocate"] = item["preallocate"] == "true"
	}
	return item, nil
}

func vmSetCommand() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "change a guest's spec; hardware only while it is stopped", ArgsUsage: "NAME",
		Flags: specFlags(),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			fields, err := specFields(c)
			if err != nil {
				return err
			}
			if len(fields) == 0 {
				return api.Errorf(api.Usage, "vm set: nothing to change; give at least one flag")
			}
			change, err := yaml.Marshal(fields)
			if err != nil {
				return api.Errorf(api.Failed, "encode the change: %v", err)
			}
			v, err := client(c).Change(c.Context, args[0], change)
			if err != nil {
				return err
			}
			return show(c, v, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s changed\n", v.Name) })
		},
	}
}
