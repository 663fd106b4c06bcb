package packages

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const (
	testVersion = "v0.3.1-4-gabc1234"
	packed      = "0.3.1+4.gabc1234"
	mostBytes   = 50 << 20
)

// build is what all tests look at: packages of a copy of the sources (which
// nobody changes), and the .deb unpacked.
type build struct {
	Packages
	sources, tree, control string
}

var (
	scratch string
	once    = sync.OnceValues(buildOnce)
)

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "vmctl-package-test"); err != nil {
		panic(err)
	}
	// For the compiler, as in the Makefile.
	os.Setenv("GOGC", "off")
	os.Setenv("GOMEMLIMIT", "1GiB")
	code := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

func built(t *testing.T) build {
	t.Helper()
	b, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func buildOnce() (b build, err error) {
	root, err := FindRoot()
	if err != nil {
		return b, err
	}
	b.sources = filepath.Join(scratch, "a")
	b.tree, b.control = filepath.Join(scratch, "tree"), filepath.Join(scratch, "control")
	if err := copySources(root, root, b.sources); err != nil {
		return b, err
	}
	if err := os.Setenv("SOURCE_DATE_EPOCH", "1700000000"); err != nil {
		return b, err
	}
	defer os.Unsetenv("SOURCE_DATE_EPOCH")
	b.Packages, err = Build(context.Background(), Options{Root: b.sources, Version: testVersion, Out: filepath.Join(scratch, "out")})
	if err != nil {
		return b, err
	}
	for flag, dir := range map[string]string{"-x": b.tree, "-e": b.control} {
		if out, err := exec.Command("dpkg-deb", flag, b.Deb, dir).CombinedOutput(); err != nil {
			return b, fmt.Errorf("dpkg-deb %s: %w: %s", flag, err, out)
		}
	}
	return b, nil
}

// copySources copies what git knows or would, and lends the cache of nfpm.
func copySources(repository, from, to string) error {
	cache := filepath.Join(repository, ".cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	script := `git -C "$1" ls-files --cached --others --exclude-standard -z |
		(cd "$2" && xargs -0 sh -c 'for f; do [ ! -f "$f" ] || printf "%s\0" "$f"; done' - | tar -c --null -T - -f -) |
		(mkdir -p "$3" && cd "$3" && tar -x --touch -f -) && ln -s "$4" "$3/.cache"`
	out, err := exec.Command("sh", "-c", script, "-", repository, from, to, cache).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy the sources: %w: %s", err, out)
	}
	return nil
}

// The same sources elsewhere, at another time, in another mood of the shell.
func TestBuildIsReproducible(t *testing.T) {
	first := built(t)
	root, err := FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "some", "where")
	if err := copySources(root, first.sources, elsewhere); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"SOURCE_DATE_EPOCH": "1700000000", "TMPDIR": t.TempDir(), "TZ": "Asia/Kolkata", "LC_ALL": "C", "COLUMNS": "40",
		"GOFLAGS": "-buildvcs=auto", "VMCTL_SOCKET": "/nowhere",
	} {
		t.Setenv(name, value)
	}
	before := syscall.Umask(0o077)
	second, err := Build(t.Context(), Options{Root: elsewhere, Version: testVersion, Out: filepath.Join(t.TempDir(), "new")})
	syscall.Umask(before)
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{first.Deb, second.Deb}, {first.RPM, second.RPM}} {
		a, errA := os.ReadFile(pair[0])
		b, errB := os.ReadFile(pair[1])
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs (%d and %d bytes): %v %v", filepath.Base(pair[0]), len(a), len(b), errA, errB)
		}
		if len(a) > mostBytes {
			t.Errorf("%s has %d bytes", filepath.Base(pair[0]), len(a))
		}
	}
}

func TestProgram(t *testing.T) {
	b := built(t)
	program := filepath.Join(b.tree, "usr/bin/vmctl")
	out, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil || string(out) != "vmctl version "+testVersion+"\n" {
		t.Errorf("--version: %v: %s", err, out)
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("not static: it has a %v", p.Type)
		}
	}
	if file.Section(".debug_info") != nil || file.Section(".zdebug_info") != nil {
		t.Error("it has debug information")
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(b.sources)) {
		t.Error("the directory of the build is in the program")
	}
}

func TestNames(t *testing.T) {
	b := built(t)
	if filepath.Base(b.Deb) != "vmctl_"+packed+"_amd64.deb" || filepath.Base(b.RPM) != "vmctl-"+packed+"-1.x86_64.rpm" {
		t.Errorf("names %s, %s", b.Deb, b.RPM)
	}
}

func TestLicences(t *testing.T) {
	b := built(t)
	data, err := os.ReadFile(filepath.Join(b.tree, "usr/share/doc/vmctl/THIRD-PARTY"))
	if err != nil {
		t.Fatal(err)
	}
	linked, err := exec.Command("go", "version", "-m", filepath.Join(b.tree, "usr/bin/vmctl")).Output()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(linked)) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "dep" {
			found++
			if !bytes.Contains(data, []byte("\n"+words[1]+" "+words[2]+"\n")) {
				t.Errorf("no licence of %s", words[1])
			}
		}
	}
	if found < 5 || !bytes.Contains(data, []byte("The Go Authors")) {
		t.Errorf("%d libraries are linked; Go is named: %v", found, bytes.Contains(data, []byte("The Go Authors")))
	}
	own, err := os.ReadFile(filepath.Join(b.tree, "usr/share/doc/vmctl/LICENSE"))
	if err != nil || !bytes.Contains(own, []byte("Apache License")) || !bytes.Contains(own, []byte("Copyright The vmctl authors")) {
		t.Errorf("own licence: %v", err)
	}
}
