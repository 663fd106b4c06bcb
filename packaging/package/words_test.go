package packages

import (
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vmctl/node"
)

// The manual has every command and every flag that the program offers.
func TestManual(t *testing.T) {
	b := built(t)
	file, err := os.Open(filepath.Join(b.tree, "usr/share/man/man8/vmctl.8.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Errorf("the archive has a time or a name: %v %q", z.ModTime, z.Name)
	}
	page := string(data)
	if !strings.HasPrefix(page, `.TH VMCTL 8 2023-11-14 vmctl "System administration"`) {
		t.Errorf("begins with %.60q", page)
	}
	for _, want := range []string{
		`.SS "vmctl node run"`, `.SS "vmctl witness run"`, `.SS "vmctl vm create"`, `.SS "vmctl ha why"`, `.SS "vmctl cluster join"`, `.SS "vmctl doctor"`,
		`\-\-state\-dir`, `\-\-protection`, "/etc/vmctl/vmctl.yaml", ".SH EXIT STATUS", ".SH FILES", ".SH SEE ALSO",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, hidden := range []string{"vmctl guard", "vmctl help"} {
		if strings.Contains(page, hidden) {
			t.Errorf("%s is there", hidden)
		}
	}
	macros := []string{".TH", ".SH", ".SS", ".PP", ".nf", ".fi", ".B", ".BR", ".I", ".IR", ".RB", ".RI", ".TP"}
	for line := range strings.Lines(page) {
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(line, ".") && !slices.Contains(macros, word) {
			t.Errorf("unknown macro: %s", line)
		}
		if strings.HasPrefix(line, "'") {
			t.Errorf("read as a macro: %s", line)
		}
	}
}

func TestHelpText(t *testing.T) {
	got := helpText("NAME:\n   vmctl x - do it\n\nUSAGE:\n   vmctl x\n.dot 'quote' C:\\\n")
	if want := "do it\n.PP\n.nf\nUSAGE:\n   vmctl x\n\\&.dot \\(aqquote\\(aq C:\\e\n.fi\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

var commented = regexp.MustCompile(`(?m)^#([a-z-]+:|  +\S)`)

// The configuration is good as it is, and with everything in it switched on.
func TestConfiguration(t *testing.T) {
	packed := filepath.Join(built(t).tree, "etc/vmctl/vmctl.yaml")
	config, err := node.ReadConfig(packed)
	if err != nil || !reflect.DeepEqual(config, node.Config{}) {
		t.Errorf("as packed: %+v, %v; want every default", config, err)
	}
	data, err := os.ReadFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(file, commented.ReplaceAll(data, []byte("$1")), 0o644); err != nil {
		t.Fatal(err)
	}
	if config, err = node.ReadConfig(file); err != nil {
		t.Fatal(err)
	}
	value := reflect.ValueOf(config)
	for i := range value.NumField() {
		if tag := value.Type().Field(i).Tag.Get("yaml"); tag != "-" && value.Field(i).IsZero() {
			t.Errorf("%s is not explained", tag)
		}
	}
}

func TestCompletion(t *testing.T) {
	b := built(t)
	const script = `source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vmctl; printf '%s\n' "${COMPREPLY[@]}"`
	for line, want := range map[string]string{
		"vmctl vm cr":             "create",
		"vmctl wit":               "witness",
		"vmctl vm create --me":    "--memory",
		"vmctl vm rm web --":      "--force",
		"vmctl --output json hel": "",
		"vmctl vm rm -- ":         "",
		"vmctl vm rm $(reboot) ":  "",
		"vmctl guar":              "",
	} {
		args := append([]string{"--norc", "-c", script, "-", filepath.Join(b.tree, "usr/share/bash-completion/completions/vmctl")}, strings.Split(line, " ")...)
		cmd := exec.Command("bash", args...)
		cmd.Env = []string{"PATH=" + filepath.Join(b.tree, "usr/bin") + ":/bin", "VMCTL_SOCKET=/nonexistent"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
		offered := strings.Fields(string(out))
		if want == "" && len(offered) > 0 || want != "" && !slices.Contains(offered, want) {
			t.Errorf("%s: %q, want %q", line, offered, want)
		}
	}
}
