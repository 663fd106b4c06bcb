package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"vmctl/ha/golden"
	"vmctl/node/api"
	"vmctl/vm"
)

// run is one call of the program, as a shell makes it.
func run(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, problems bytes.Buffer
	code = Main(append([]string{"vmctl"}, args...), strings.NewReader(stdin), &out, &problems)
	return code, out.String(), problems.String()
}

func TestArrange(t *testing.T) {
	for line, want := range map[string]string{
		"":                                     "",
		"vm ls":                                "vm ls",
		"vm show web":                          "vm show web",
		"vm create web --cpus 2":               "vm create --cpus 2 web",
		"vm create --cpus 2 web":               "vm create --cpus 2 web",
		"vm create web --cpus=2":               "vm create --cpus=2 web",
		"vm create web -cpus 2":                "vm create -cpus 2 web",
		"vm rm web --force":                    "vm rm --force web",
		"vm disk resize web d +1G --force":     "vm disk resize --force web d +1G",
		"vm rm --force web":                    "vm rm --force web",
		"vm rm web --force=false":              "vm rm --force=false web",
		"vm logs web -f":                       "vm logs -f web",
		"vm logs -f web":                       "vm logs -f web",
		"vm create -f web.yaml":                "vm create -f web.yaml",
		"vm create -f -":                       "vm create -f -",
		"vm create - --start":                  "vm create --start -- -",
		"vm create --start -f f":               "vm create --start -f f",
		"vm ls --output json":                  "--output json vm ls",
		"vm --output json ls":                  "--output json vm ls",
		"--output json vm ls":                  "--output json vm ls",
		"vm show web --output=json --socket s": "--output=json --socket s vm show web",
		// A value is taken as it is, whatever it looks like.
		"vm create web --append --quiet":    "vm create --append --quiet web",
		"vm create web --append -- --start": "vm create --append -- --start web",
		"vm create web --append=--quiet":    "vm create --append=--quiet web",
		"vm create web --disk 1G --disk 2G": "vm create --disk 1G --disk 2G web",
		"vm stop --timeout -5s web":         "vm stop --timeout -5s web",
		"vm show -- --force":                "vm show -- --force",
		"vm show -- web":                    "vm show web",
		"vm show -- -- web":                 "vm show -- -- web",
		"vm rm web -- --force":              "vm rm -- web --force",
		// An argument is not taken for a value that is missing.
		"vm create web --memory": "vm create --memory",
		"vm wait web --state":    "vm wait --state",
		"vm ls --output":         "--output",
		"--socket":               "--socket",
		"vm create a b --memory": "vm create --memory",
		// What is unknown is left to the parser.
		"vm show web --nope":               "vm show --nope web",
		"vm show web --nope=1":             "vm show --nope=1 web",
		"vm show web --help":               "vm show --help web",
		"--version":                        "--version",
		"nope --nope":                      "--nope nope",
		"nope vm ls":                       "nope vm ls",
		"vm nope ls":                       "vm nope ls",
		"vm show ls":                       "vm show ls",
		"-- vm ls":                         "vm ls",
		"vm sh --generate-bash-completion": "vm sh --generate-bash-completion",
	} {
		args := append([]string{"vmctl"}, strings.Fields(line)...)
		given := slices.Clone(args)
		got, err := arrange(newApp(nil, nil, nil), args)
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if strings.Join(got, " ") != strings.TrimSpace("vmctl "+want) {
			t.Errorf("%q becomes %q, not %q", line, got[1:], want)
		}
		if !slices.Equal(args, given) {
			t.Errorf("%q: the words given were changed to %q", line, args)
		}
	}
	if got, err := arrange(newApp(nil, nil, nil), nil); got != nil || err != nil {
		t.Errorf("no words become %q, %v", got, err)
	}
}

func FuzzArrange(f *testing.F) {
	for _, line := range []string{"vm create web --cpus 2", "--output", "-- -", "vm rm -- --force", "vm wait --state"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := append([]string{"vmctl"}, strings.Split(line, " ")...)
		got, err := arrange(newApp(nil, nil, nil), slices.Clone(args))
		if err != nil && api.AsError(err).Code != api.Usage {
			t.Errorf("%q: %v", args, err)
		}
		if len(got) == 0 || got[0] != "vmctl" || len(got) > len(args)+1 {
			t.Errorf("%q becomes %q", args, got)
		}
	})
}

func TestParseItem(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ flag, text, want string }{
		{"disk", "10G", `{"size":"10G"}`},
		{"disk", "size=10G,name=root,format=qcow2", `{"format":"qcow2","name":"root","size":"10G"}`},
		{"disk", "10G,name=root", `{"name":"root","size":"10G"}`},
		{"disk", "image=x.qcow2", `{"image":"` + cwd + `/x.qcow2"}`},
		{"disk", "path=/dev/a=b", `{"path":"/dev/a=b"}`},
		{"disk", "1G,preallocate=true", `{"preallocate":true,"size":"1G"}`},
		{"disk", "1G,preallocate=false", `{"preallocate":false,"size":"1G"}`},
		{"disk", "bogus=1", `{"bogus":"1"}`}, // the agent knows the words
		{"nic", "user", `{"type":"user"}`},
		{"nic", "bridge=br0,mac=52:54:00:00:00:01", `{"bridge":"br0","mac":"52:54:00:00:00:01"}`},
		{"nic", "user,forward=tcp:127.0.0.1:1:2,forward=udp:127.0.0.1:3:4",
			`{"forward":["tcp:127.0.0.1:1:2","udp:127.0.0.1:3:4"],"type":"user"}`},
		{"disk", "", "size has no value"},
		{"disk", ",", "size has no value"},
		{"disk", "size=", "size has no value"},
		{"disk", "=1G", "no word before"},
		{"disk", "1G,2G", "not key=value"},
		{"disk", "1G,size=2G", "given twice"},
		{"disk", "1G,", "not key=value"},
		{"disk", "1G,preallocate=yes", "true or false"},
		{"nic", "user,forward=", "no value"},
	} {
		item, err := parseItem(test.flag, test.text)
		if err != nil {
			if api.AsError(err).Code != api.Usage || !strings.Contains(err.Error(), test.want) {
				t.Errorf("--%s %s: %v", test.flag, test.text, err)
			}
			continue
		}
		if got, _ := json.Marshal(item); string(got) != test.want {
			t.Errorf("--%s %s: %s, want %s", test.flag, test.text, got, test.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for want, err := range map[int]error{
		0: nil,
		1: errors.New("plain"),
		2: fmt.Errorf("wrapped: %w", &vm.SpecError{Problems: []string{"x"}}),
		3: api.Errorf(api.NotFound, "x"),
		4: fmt.Errorf("wrapped: %w", api.Errorf(api.Conflict, "x")),
		5: errors.Join(api.Errorf(api.Unreachable, "x"), errors.New("y")),
		6: api.Errorf(api.Unsafe, "x"),
	} {
		var stderr bytes.Buffer
		if code := report(err, &stderr); code != want {
			t.Errorf("%v: exit code %d, want %d", err, code, want)
		}
		if (err == nil) != (stderr.Len() == 0) {
			t.Errorf("%v: says %q", err, &stderr)
		}
	}
	var stderr bytes.Buffer
	for _, err := range []error{api.Errorf("refused", "x"), api.Errorf("", ""), &api.Error{}} {
		if code := report(err, &stderr); code != 1 {
			t.Errorf("a class that is not known: exit code %d", code)
		}
	}
	if strings.Count(stderr.String(), "vmctl: ") != 3 {
		t.Errorf("a failure without a word: %q", &stderr)
	}
}

// Every command explains itself, and every flag of it is explained.
func TestHelp(t *testing.T) {
	var walk func(path []string, commands []*cli.Command)
	visit := func(path []string, flags []cli.Flag) {
		code, out, stderr := run("", append(path, "--help")...)
		if code != 0 || stderr != "" {
			t.Errorf("%v --help: exit code %d, %s", path, code, stderr)
		}
		golden.Compare(t, strings.Join(append([]string{"help"}, path...), "-")+".golden", out)
		for _, flag := range flags {
			usage := flag.(cli.DocGenerationFlag).GetUsage()
			if usage == "" || flag.(cli.DocGenerationFlag).TakesValue() && !strings.Contains(usage, "`") {
				t.Errorf("%v --%s is not explained, or its value has no name: %q", path, flag.Names()[0], usage)
			}
		}
		for _, line := range strings.Split(out, "\n") {
			if len(line) > 150 {
				t.Errorf("%v --help has a line of %d characters: %s", path, len(line), line)
			}
		}
	}
	walk = func(path []string, commands []*cli.Command) {
		for _, command := range commands {
			if command.Hidden {
				continue
			}
			if command.Usage == "" {
				t.Errorf("%v %s has no usage", path, command.Name)
			}
			here := append(slices.Clone(path), command.Name)
			visit(here, command.Flags)
			walk(here, command.Subcommands)
		}
	}
	app := newApp(nil, nil, nil)
	visit(nil, app.Flags)
	walk(nil, app.Commands)
}
