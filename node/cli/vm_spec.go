package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"vmctl/node/api"
	"vmctl/vm"
)

// specFlags are the flags that describe a guest; each has the word of the spec
// file. Those of a change leave alone what is not said.
func specFlags(change bool) []cli.Flag {
	otherwise := func(text string) string {
		if change {
			return "as it is"
		}
		return text
	}
	// Those of a guest's files are known to a change, too, so that the agent can say
	// what to do instead.
	return []cli.Flag{
		&cli.IntFlag{Name: "cpus", Usage: "virtual `CPUS`", DefaultText: otherwise("1")},
		&cli.StringFlag{Name: "memory", Usage: "memory `SIZE`, such as 512M or 2GiB", DefaultText: otherwise("512M")},
		&cli.StringSliceFlag{Name: "disk", Usage: "a `DISK`, see above", Hidden: change},
		&cli.StringSliceFlag{Name: "nic", Usage: "a network `CARD`, see above"},
		&cli.StringFlag{Name: "kernel", Usage: "boot this kernel `FILE` directly", Hidden: change},
		&cli.StringFlag{Name: "initrd", Usage: "initial RAM disk `FILE` of that kernel", Hidden: change},
		&cli.StringFlag{Name: "append", Usage: "command `LINE` of that kernel"},
		&cli.StringFlag{Name: "display", Usage: "`KIND` of screen: none, or vnc (VGA, by VNC on a unix socket that 'vm show' names)", DefaultText: otherwise(vm.DisplayNone)},
		&cli.StringFlag{Name: "machine", Usage: "versioned QEMU machine `TYPE`, a q35", DefaultText: otherwise(vm.DefaultMachine)},
		&cli.StringFlag{Name: "cpu", Usage: "QEMU CPU `MODEL` that both hosts have"},
		&cli.StringFlag{Name: "accel", Usage: "accelerator `NAME`: auto, kvm or tcg", DefaultText: otherwise("auto")},
		&cli.StringFlag{Name: "protection", Usage: "`LEVEL`: none, restart (booted on the peer) or resume (goes on there)", DefaultText: otherwise("none")},
		&cli.Float64Flag{Name: "interval", Usage: "`SECONDS` between two checkpoints", DefaultText: otherwise("0.5")},
		&cli.StringFlag{Name: "resync-rate", Usage: "at most `SIZE` a second of its disks is compared or sent to make a replica whole; 0: no bound", DefaultText: otherwise("0")},
		&cli.StringFlag{Name: "restart", Usage: "`WHEN` to start it again here after it ended: never, on-failure or always", DefaultText: otherwise("on-failure")},
		&cli.StringFlag{Name: "isolation", Usage: "`WHAT` to do with it here when its lease ends: freeze it or stop it", DefaultText: otherwise("freeze")},
		&cli.StringFlag{Name: "recovery", Usage: "`ACTION` of the peer when the owner has failed: resume, restart (boot it) or leave", DefaultText: otherwise("resume")},
		&cli.IntFlag{Name: "priority", Usage: "order `N` of starts, the higher first", DefaultText: otherwise("0")},
		&cli.StringSliceFlag{Name: "after", Usage: "start it when guest `NAME` runs; may be repeated"},
		&cli.IntFlag{Name: "attempts", Usage: "give it up after `N` failed starts in a row", DefaultText: otherwise("3")},
		&cli.Float64Flag{Name: "backoff", Usage: "`SECONDS` after a failed start, doubled each time", DefaultText: otherwise("5")},
		&cli.StringFlag{Name: "failback", Usage: "`WHEN` it goes back home after a takeover: never or when-synced", DefaultText: otherwise("never")},
		&cli.Float64Flag{Name: "settle", Usage: "`SECONDS` that all must have been well before it goes home", DefaultText: otherwise("60")},
		&cli.StringFlag{Name: "home", Usage: "the `NODE` it goes back to", DefaultText: otherwise("where it is made")},
		&cli.BoolFlag{Name: "standby", Usage: "keep a QEMU waiting on the peer to take it, at 53 MB there", DefaultText: otherwise("true"), Value: true},
		&cli.BoolFlag{Name: "autostart", Usage: "start it when the node starts", DisableDefaultText: true},
	}
}

const specWords = `--disk and --nic may be repeated and take words with commas between them:
   --disk 10G                            an empty disk; short for size=10G
   --disk image=FILE[,size=20G]          a copy of an image, grown to the size
   --disk path=FILE,format=raw           an existing disk, which stays where it is
      more words: name=N, format=raw|qcow2, preallocate=true
` + nicWords

const nicWords = `   --nic user,forward=tcp:127.0.0.1:8080:80
                                         behind the host's address, port 8080 leads to 80
   --nic bridge=br0                      on a bridge of the host
   --nic tap=tap0                        on a tap device that exists
      more words: mac=52:54:00:12:34:56`

// specFields turns the flags that were given into fields of the spec file, so
// that one strict parser judges both.
func specFields(c *cli.Context) (map[string]any, error) {
	if err := checkEmpty(c); err != nil {
		return nil, err
	}
	fields := map[string]any{}
	for _, name := range []string{"cpus", "memory", "append", "display", "machine", "cpu", "accel", "isolation", "standby", "autostart"} {
		if c.IsSet(name) {
			fields[name] = c.Value(name)
		}
	}
	for _, name := range []string{"kernel", "initrd"} {
		if c.IsSet(name) {
			fields[name] = here(c.String(name))
		}
	}
	protection := map[string]any{}
	if c.IsSet("protection") {
		protection["level"] = c.String("protection")
	}
	if c.IsSet("interval") {
		protection["interval_seconds"] = c.Float64("interval")
	}
	if c.IsSet("resync-rate") {
		protection["resync_rate"] = c.String("resync-rate")
	}
	if len(protection) > 0 {
		fields["protection"] = protection
	}
	if c.IsSet("restart") {
		fields["restart"] = map[string]any{"policy": c.String("restart")}
	}
	if recovery := recoveryFields(c); len(recovery) > 0 {
		fields["recovery"] = recovery
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

// recoveryFields are the words of a recovery policy that were given.
func recoveryFields(c *cli.Context) map[string]any {
	fields := map[string]any{}
	for flag, field := range map[string]string{
		"recovery": "action", "priority": "priority", "attempts": "attempts", "backoff": "backoff_seconds",
		"failback": "failback", "settle": "settle_seconds", "home": "home",
	} {
		if c.IsSet(flag) {
			fields[field] = c.Value(flag)
		}
	}
	if c.IsSet("after") {
		after := []string{}
		for _, name := range c.StringSlice("after") {
			if name != "" { // an empty one clears the list
				after = append(after, name)
			}
		}
		fields["after"] = after
	}
	return fields
}

// checkEmpty refuses a flag that says nothing: an empty variable of a script, or a
// 0 where nobody has said anything, must not become a default in silence.
func checkEmpty(c *cli.Context) error {
	for _, flag := range specFlags(false) {
		name := flag.Names()[0]
		_, isBool := flag.(*cli.BoolFlag)
		clears := name == "kernel" || name == "initrd" || name == "append"
		if name == "priority" || name == "resync-rate" && c.String(name) != "" { // 0 is one
			continue
		}
		if !c.IsSet(name) || isBool || clears && c.Command.Name == "set" {
			continue
		}
		switch value := c.Value(name); value {
		case "":
			return wrong(c, "--%s %q says nothing; leave the flag out %s", name, "", yesNo(c.Command.Name == "set", "to change nothing", "for the default"))
		case 0, 0.0, "0":
			return wrong(c, "--%s 0: use more than 0; %s is the default", name, flag.(cli.DocGenerationFlag).GetDefaultText())
		}
	}
	return nil
}

// here makes a file's name one that the agent, which runs elsewhere, finds.
func here(file string) string {
	absolute, err := filepath.Abs(file)
	if err != nil || file == "" {
		return file
	}
	return absolute
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
		if err := addWord(item, key, value); err != nil {
			return nil, api.Errorf(api.Usage, "--%s %s: %v", flag, text, err)
		}
	}
	return item, nil
}

// addWord adds one key=value of a list's item.
func addWord(item map[string]any, key, value string) error {
	if key == "" {
		return fmt.Errorf("%q has no word before it", "="+value)
	}
	if value == "" {
		return fmt.Errorf("%s has no value", key)
	}
	if key == "forward" {
		list, _ := item[key].([]string)
		item[key] = append(list, value)
		return nil
	}
	if item[key] != nil {
		return fmt.Errorf("%s is given twice", key)
	}
	switch key {
	case "image", "path":
		item[key] = here(value)
	case "preallocate":
		if value != "true" && value != "false" {
			return fmt.Errorf("preallocate is true or false")
		}
		item[key] = value == "true"
	default:
		item[key] = value
	}
	return nil
}
