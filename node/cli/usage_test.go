package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestWrongUsage makes no connection: each is refused before the agent is
// called, with exit code 2, a reason, and where to read on.
func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("VMCTL_SOCKET", filepath.Join(dir, "none"))
	for _, test := range []struct{ line, say string }{
		{"nope", `no command "nope"`},
		{"vm nope", `no command "nope"`},
		{"vm", "a command is missing: one of create, set, ls"},
		{"cluster", "a command is missing"},
		{"--nope", "no flag --nope"},
		{"vm ls --nope", "vmctl vm ls: there is no flag --nope"},
		{"vm ls extra", "too many arguments"},
		{"vm show", "NAME is missing"},
		{"vm show a b", "too many arguments"},
		{"vm show ''", "NAME is empty"},
		{"vm start", "NAME is missing"},
		{"vm start ''", "NAME is empty"},
		{"vm stop a --timeout x", "invalid value"},
		{"vm stop a --timeout 30", "invalid value"},
		{"vm stop a --timeout -5s", "below zero"},
		{"vm stop a --timeout", "--timeout needs a value"},
		{"vm rm", "NAME is missing"},
		{"vm kept", "NAME is missing"},
		{"vm disk", "a command is missing: one of resize"},
		{"vm disk nope", `no command "nope"`},
		{"vm disk resize web", "DISK, SIZE is missing"},
		{"vm disk resize web disk0 ''", "SIZE is empty"},
		{"vm disk resize web disk0 -1G", "there is no flag"},
		{"vm disk resize web disk0 1G 2G", "too many arguments"},
		{"vm kept web --rm x", "invalid value"},
		{"node shutdown now", "too many"},
		{"vm set web", "nothing to change"},
		{"vm set --memory 1G", "NAME is missing"},
		{"vm wait web --state runing", `"runing" is no state`},
		{"vm wait web --timeout -1s", "below zero"},
		{"vm create", "NAME is missing"},
		{"vm create a b", "too many arguments"},
		{"vm create web --memory", "--memory needs a value"},
		{"vm create web --cpus 0", "--cpus 0: use more than 0; 1 is the default"},
		{"vm create web --memory ''", "says nothing"},
		{"vm create web --memory=", "says nothing"},
		{"vm create web --memory 0", "--memory 0: use more than 0; 512M is the default"},
		{"vm create web --interval 0", "--interval 0: use more than 0; 0.5 is the default"},
		{"vm create web --attempts 0", "--attempts 0: use more than 0; 3 is the default"},
		{"vm create web --backoff 0", "--backoff 0: use more than 0; 5 is the default"},
		{"vm set web --backoff 0.0", "--backoff 0: use more than 0; 5 is the default"},
		{"vm set web --settle 0", "--settle 0: use more than 0; 60 is the default"},
		{"vm set web --cpu ''", "leave the flag out to change nothing"},
		{"vm create web --kernel ''", "says nothing"},
		{"vm set web --protection ''", "says nothing"},
		{"vm create web --cpus two", "invalid value"},
		{"vm create web --disk ''", "size has no value"},
		{"vm create web -f x.yaml", "not both"},
		{"vm create -f x.yaml --memory 1G", "not both"},
		{"vm create -f " + filepath.Join(dir, "none.yaml"), "no such file"},
		{"vm create -f " + dir, "is a directory"},
		{"vm create -f /dev/zero", "larger than"},
		{"vm create -f ''", "no such file"},
		{"cluster init", "NAME is missing"},
		{"cluster join --token T", "ADDR:PORT is missing"},
		{"cluster join a:1", "--token is missing"},
		{"cluster join a:1 --token ''", "--token is missing"},
		{"cluster token extra", "too many"},
		{"ha mode bias fence", "too many"},
		{"ha mode bias", "--bias is missing"},
		{"ha mode bias --bias ''", "--bias is missing"},
		{"ha mode fence --delay -5s", "below zero"},
		{"ha mode fence --delay 2h", "use up to 1h"},
		{"node maintenance ON", `"ON": it is on or off`},
		{"vm create web --cpus 1 --cpus 2", "vmctl vm create: --cpus is given twice"},
		{"vm create -f x --file y", "--file is given twice"},
		{"vm rm --force web --force", "--force is given twice"},
		{"vm stop web --timeout 1s --timeout=2s", "--timeout is given twice"},
		{"vm set web --resync-rate ''", "says nothing"},
		{"ha mode none --bias a", "--bias belongs to the mode bias"},
		{"ha mode bias --bias a --delay 1s", "--delay to the mode fence"},
		{"witness add a:1", "--token is missing"},
		{"witness run extra", "too many"},
		{"node run extra", "too many"},
		{"node run --config " + filepath.Join(dir, "none"), "no such file"},
		{"ha why", "VM is missing"},
		{"ha promote", "VM is missing"},
		{"events --since -5m", "below zero"},
		{"events --since yesterday", "invalid value"},
		{"guard", "CONFIG is missing"},
		{"guard --nope", "no flag --nope"},
		{"doctor now", "too many"},
		{"status now", "too many"},
		{"--output xml vm ls", `--output "xml"`},
		{"vm ls --output xml", `--output "xml"`},
		{"vm ls --output", "--output needs a value"},
	} {
		code, stdout, stderr := run("", words(test.line)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, test.say) || strings.Contains(stderr, "goroutine") {
			t.Errorf("vmctl %s: exit code %d, out %q, err %q", test.line, code, stdout, stderr)
		}
	}
}

// words splits a line as a shell does, as far as needed.
func words(line string) []string {
	list := strings.Fields(line)
	for i := range list {
		if list[i] == "''" {
			list[i] = ""
		}
	}
	return list
}

// Every command that needs the agent says the same when there is none.
func TestNoAgent(t *testing.T) {
	t.Setenv("VMCTL_SOCKET", filepath.Join(t.TempDir(), "none"))
	arguments := map[string][]string{
		"cluster init": {"shop"}, "cluster join": {"a:1", "--token", "T"}, "witness add": {"a:1", "--token", "T"},
		"vm set": {"web", "--cpus", "2"}, "vm disk resize": {"web", "disk0", "+1G"}, "node maintenance": {"on"},
	}
	offline := map[string]bool{"node run": true, "witness run": true, "witness token": true, "doctor": true}
	var visit func(command *cli.Command, path ...string)
	visit = func(command *cli.Command, path ...string) {
		for _, sub := range command.Subcommands {
			visit(sub, append(path[:len(path):len(path)], sub.Name)...)
		}
		if len(command.Subcommands) > 0 {
			return
		}
		name := strings.Join(path, " ")
		if offline[name] || command.Hidden {
			return
		}
		args, known := arguments[name]
		if !known && command.ArgsUsage != "" {
			args = []string{"web"}
		}
		for _, form := range []string{"table", "json"} {
			code, stdout, stderr := run("", append(append(path, args...), "--output", form)...)
			if code != 5 || stdout != "" || !strings.Contains(stderr, "vmctl node run") {
				t.Errorf("vmctl %s %v: exit code %d, out %q, err %q", name, args, code, stdout, stderr)
			}
		}
	}
	for _, command := range newApp(nil, nil, nil).Commands {
		visit(command, command.Name)
	}
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("VMCTL_SOCKET", filepath.Join(dir, "from-env"))
	if _, _, stderr := run("", "vm", "ls"); !strings.Contains(stderr, "from-env") {
		t.Errorf("VMCTL_SOCKET: %s", stderr)
	}
	if _, _, stderr := run("", "vm", "ls", "--socket", filepath.Join(dir, "from-flag")); !strings.Contains(stderr, "from-flag") {
		t.Errorf("a flag over VMCTL_SOCKET: %s", stderr)
	}
	t.Setenv("VMCTL_OUTPUT", "xml")
	if code, _, stderr := run("", "vm", "ls"); code != 2 || !strings.Contains(stderr, "xml") {
		t.Errorf("VMCTL_OUTPUT: %d %s", code, stderr)
	}
	if code, _, _ := run("", "vm", "ls", "--output", "table"); code != 5 {
		t.Errorf("a flag over VMCTL_OUTPUT: %d", code)
	}
	t.Setenv("VMCTL_OUTPUT", "")
	t.Setenv("VMCTL_SOCKET", "")
	if code, _, stderr := run("", "vm", "ls", "--socket", filepath.Join(dir, "none")); code != 5 {
		t.Errorf("empty variables: %d %s", code, stderr)
	}
	if code, _, stderr := run("", "--version"); code != 0 || stderr != "" {
		t.Errorf("--version: %d %s", code, stderr)
	}
	if code, out, _ := run(""); code != 0 || !strings.Contains(out, "Exit codes") {
		t.Errorf("nothing at all: %d %s", code, out)
	}
}
