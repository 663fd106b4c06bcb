package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// levels are the rooms of DESIGN.md section 3: an import may only point to a
// lower level, or stay inside its own room.
var levels = map[string]int{
	".":        5,
	"node/cli": 4, "node/e2e": 4,
	"node": 3, "node/witness": 3,
	"node/api": 2, "node/peer": 2, "node/lease": 2, "node/doctor": 2, "node/notify": 2, "node/fence": 2,
	"snapshot": 1, "migrate": 1,
	"store": 0, "vm": 0, "ha": 0, "node/wire": 0,
	"packaging": 4,
}

// only says which rooms alone may import a module from outside.
var only = map[string][]string{
	"go.etcd.io/bbolt":                    {"store"},
	"github.com/urfave/cli/v2":            {"node/cli"},
	"github.com/vishvananda/netlink":      {"vm", "node/e2e"},
	"github.com/digitalocean/go-qemu/qmp": {"vm"},
}

type goPackage struct {
	ImportPath, Dir, Doc                                     string
	Imports, TestImports, XTestImports, GoFiles, TestGoFiles []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		var p goPackage
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// roomOf is the room a package is in: the longest of levels that holds it.
func roomOf(importPath string) (room string, known bool) {
	path := strings.TrimPrefix(strings.TrimPrefix(importPath, "vmctl"), "/")
	if path == "" {
		return ".", true
	}
	for r := path; r != "."; r = filepath.Dir(r) {
		if _, ok := levels[r]; ok {
			return r, true
		}
	}
	return "", false
}

// badArrow says what is wrong with an import, or nothing.
func badArrow(from, to string) string {
	room, known := roomOf(from)
	if !known {
		return from + " is in no room"
	}
	if !strings.HasPrefix(to, "vmctl") {
		if room == "ha" && strings.Contains(to, ".") {
			return from + " imports " + to + ": ha uses the standard library only"
		}
		for module, rooms := range only {
			if strings.HasPrefix(to, module) && !slices.Contains(rooms, room) {
				return from + " imports " + to + ", which belongs to " + strings.Join(rooms, ", ")
			}
		}
		return ""
	}
	target, known := roomOf(to)
	switch {
	case !known:
		return to + " is in no room"
	case target == "packaging" && room == "node/e2e":
		return "" // the tests' own guest
	case room == target, levels[target] < levels[room]:
		return ""
	case levels[room] == 2 && levels[target] == 2 && target == "node/peer":
		return "" // connections of a purpose stand on peer's
	}
	return from + " imports " + to + ": arrows run down only"
}

func TestArrows(t *testing.T) {
	for _, p := range packages(t) {
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			// A test may use its neighbours, but nothing above.
			from, _ := roomOf(p.ImportPath)
			target, ours := roomOf(to)
			if bad := badArrow(p.ImportPath, to); bad != "" && !(strings.HasPrefix(to, "vmctl") && ours && levels[from] == levels[target]) {
				t.Errorf("a test of %s", bad)
			}
		}
		for _, to := range p.Imports {
			if bad := badArrow(p.ImportPath, to); bad != "" {
				t.Error(bad)
			}
			if strings.HasPrefix(to, "vmctl/") && strings.HasSuffix(to, "test") {
				t.Errorf("%s imports %s, which is for tests only", p.ImportPath, to)
			}
		}
	}
}

// TestArrowsAreSeen makes sure that the test above can fail.
func TestArrowsAreSeen(t *testing.T) {
	for _, bad := range [][2]string{
		{"vmctl/store", "vmctl/vm"}, {"vmctl/vm", "vmctl/snapshot"}, {"vmctl/ha", "vmctl/store"}, {"vmctl/snapshot/memory", "vmctl/node"},
		{"vmctl/ha/sim", "golang.org/x/sys/unix"}, {"vmctl/node", "go.etcd.io/bbolt"}, {"vmctl/node/api", "vmctl/node/cli"}, {"vmctl/attic", "fmt"},
		{"vmctl/node", "vmctl/packaging/testguest"}, {"vmctl/node/lease", "vmctl/node/api"}, {"vmctl/node/api", "github.com/urfave/cli/v2"},
	} {
		if badArrow(bad[0], bad[1]) == "" {
			t.Errorf("%s -> %s is not seen", bad[0], bad[1])
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if _, err := os.Stat(filepath.Join(p.Dir, "doc.go")); err != nil && p.ImportPath != "vmctl" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no doc.go", p.ImportPath)
		}
	}
}

// Files are of about 150 lines; these are the most.
const (
	mostLines     = 300
	mostTestLines = 500
)

func TestFileLengths(t *testing.T) {
	for _, path := range goFiles(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		most := mostLines
		if strings.HasSuffix(path, "_test.go") {
			most = mostTestLines
		}
		if n := bytes.Count(data, []byte("\n")); n > most {
			t.Errorf("%s has %d lines, %d are the most", path, n, most)
		}
	}
}

// TestWords keeps out what must not be in the sources.
func TestWords(t *testing.T) {
	for _, path := range goFiles(t) {
		if path == "hygiene_test.go" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"TODO", "FIXME", "XXX", "not implemented"} {
			if bytes.Contains(data, []byte(word)) {
				t.Errorf("%s: %s: finish it, or say in DESIGN.md what is missing", path, word)
			}
		}
		for i, line := range bytes.Split(data, []byte("\n")) {
			if panics(path, string(line)) {
				t.Errorf("%s:%d: panic: return an error", path, i+1)
			}
		}
	}
}

// panics says whether a line of the product begins a panic. To hand on one that
// was caught, as p, is no beginning.
func panics(path, line string) bool {
	if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(filepath.Dir(path), "test") {
		return false
	}
	code, _, _ := strings.Cut(line, "//")
	return strings.HasPrefix(strings.TrimSpace(code), "panic(") && strings.TrimSpace(code) != "panic(p)"
}

func TestPanicsAreSeen(t *testing.T) {
	for _, test := range []struct {
		path, line string
		want       bool
	}{
		{"store/db.go", "\tpanic(\"no\")", true}, {"store/db.go", "\t\tpanic(err) // never", true}, {"store/db.go", "panic(p)", false},
		{"store/db_test.go", "panic(err)", false}, {"vm/qmp/qmptest/server.go", "panic(err)", false}, {"store/db.go", "// panic(err)", false},
	} {
		if panics(test.path, test.line) != test.want {
			t.Errorf("%s: %q: want %v", test.path, test.line, test.want)
		}
	}
}

func TestTools(t *testing.T) {
	if testing.Short() {
		t.Skip("formatting, vet and staticcheck take a while")
	}
	out, err := exec.Command("gofmt", append([]string{"-l"}, goFiles(t)...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("gofmt: %v\n%s", err, out)
	}
	// Memory is there: collecting garbage costs more.
	env := append(os.Environ(), "GOGC=off", "GOMEMLIMIT=2GiB")
	build := exec.Command("go", "tool", "-n", "staticcheck")
	build.Env = append(env, "CGO_ENABLED=0")
	path, err := build.Output()
	if err != nil {
		t.Fatalf("build staticcheck: %v\n%s", err, errorOf(err))
	}
	// Both read what the compiler has written of each package: that of the tests, which
	// the race detector needs, is there.
	for _, tool := range [][]string{{"go", "vet", "./..."}, {strings.TrimSpace(string(path)), "./..."}} {
		cmd := exec.Command(tool[0], tool[1:]...)
		cmd.Env = append(env, "CGO_ENABLED=1", "GOFLAGS="+os.Getenv("GOFLAGS")+" -race")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(tool, " "), err, out)
		}
	}
}

// errorOf is what a program that failed has written as its error.
func errorOf(err error) []byte {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.Stderr
	}
	return nil
}

// withoutRace is all that a file may be that TestTools does not look at.
var withoutRace = regexp.MustCompile(`^//go:build !race\n\npackage \w+\n\nconst underRace = false\n$`)

func TestOnlyAConstantIsWithoutRace(t *testing.T) {
	for _, path := range goFiles(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			if bytes.HasPrefix(line, []byte("//go:build")) && bytes.Contains(line, []byte("!race")) && !withoutRace.Match(data) {
				t.Errorf("%s: vet and staticcheck do not see it", path)
			}
		}
	}
}

func goFiles(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, path := range strings.Fields(string(out)) {
		if _, err := os.Stat(path); err == nil {
			files = append(files, path)
		}
	}
	return files
}
