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

func vmCreateCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "make a guest", ArgsUsage: "NAME | -f FILE",
		Description: specWords + `

A spec file has the same words in YAML or JSON, with disks and nics as lists; 'vmctl vm show' prints one.

Each node alone must be able to hold its own running guests and all protected ones of the other; what would not fit
is refused (exit 6) unless --force is given.

Examples:
   vmctl vm create web --memory 1G --disk image=debian.qcow2 --nic bridge=br0 --protection resume --start
   vmctl vm create -f web.yaml`,
		Flags: append(specFlags(false),
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "read the spec from `FILE`, - for standard input"},
			&cli.BoolFlag{Name: "start", Usage: "start it at once", DisableDefaultText: true}, forceFlag()),
		Action: vmCreate,
	}
}

func vmCreate(c *cli.Context) error {
	spec, err := wantedSpec(c)
	if err != nil {
		return err
	}
	agent := client(c)
	defer agent.Close()
	agent.Force = c.Bool("force")
	v, err := agent.Create(c.Context, spec)
	if err != nil {
		return err
	}
	warn(c, v)
	if c.Bool("start") {
		made := v.Name
		if v, err = agent.Act(c.Context, made, api.Start, 0); err != nil {
			return madeOnly(made, err)
		}
		warn(c, v)
	}
	return show(c, v, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s made, %s\n", v.Name, v.State) })
}

// madeOnly says that a guest which could not be started is there all the same.
func madeOnly(name string, err error) error {
	e := *api.AsError(err)
	e.Hint = strings.TrimSpace(e.Hint + fmt.Sprintf(" %s is made and stays: `vmctl vm start %s` tries again, `vmctl vm rm %s` removes it.", name, name, name))
	return &e
}

func wantedSpec(c *cli.Context) ([]byte, error) {
	if !c.IsSet("file") {
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
	if c.NArg() != 0 {
		return nil, wrong(c, "give a NAME or -f FILE, not both: the file has the name")
	}
	for _, flag := range specFlags(false) {
		if name := flag.Names()[0]; c.IsSet(name) {
			return nil, wrong(c, "give --%s or -f FILE, not both: say it in the file", name)
		}
	}
	return readFile(c, c.String("file"))
}

// maxSpec bounds what is read as a spec: a device has no end.
const maxSpec = 1 << 20

// readFile reads a spec. A pipe that never ends is left to the process's end.
func readFile(c *cli.Context, file string) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		data, err := readBounded(c.App.Reader, file)
		read <- result{data, err}
	}()
	select {
	case r := <-read:
		if r.err != nil {
			return nil, api.Errorf(api.Usage, "read the spec: %v", r.err)
		}
		return r.data, nil
	case <-c.Context.Done():
		return nil, c.Context.Err()
	}
}

func readBounded(stdin io.Reader, file string) ([]byte, error) {
	in := stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer opened.Close()
		in = opened
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSpec+1))
	if err == nil && len(data) > maxSpec {
		err = fmt.Errorf("%s is larger than %s", file, bytesText(maxSpec))
	}
	return data, err
}

// forceFlag is the opt-out of admission control.
func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "do it although one node alone could not hold all protected guests then", DisableDefaultText: true}
}

func vmSetCommand() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "change a guest's spec; hardware only while it is stopped", ArgsUsage: "NAME",
		Description: `Only what is said changes, and takes effect at once. Hardware (CPUs, memory, network cards, display, machine,
CPU model, accelerator, the kernel's command line) changes only while the guest is stopped. Disks, kernel and
initrd stay as they are; 'vmctl vm disk resize' makes a disk larger. --after '' and --append '' empty them.

--nic may be repeated; the cards given replace all that there are, and take words with commas between them:
` + nicWords + `

Examples:
   vmctl vm set web --protection resume --interval 0.5
   vmctl vm set web --memory 2G`,
		Flags: append(specFlags(true), forceFlag()),
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
				return wrong(c, "nothing to change; give at least one flag")
			}
			change, err := yaml.Marshal(fields)
			if err != nil {
				return api.Errorf(api.Failed, "encode the change: %v", err)
			}
			agent := client(c)
			agent.Force = c.Bool("force")
			v, err := agent.Change(c.Context, args[0], change)
			if err != nil {
				return err
			}
			warn(c, v)
			return show(c, v, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s changed\n", v.Name) })
		},
	}
}
