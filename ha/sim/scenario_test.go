package sim

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vmctl/ha/golden"
)

// folders lists the scenarios, sorted by name.
func folders(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("testdata/*/script")
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range found {
		found[i] = filepath.Dir(path)
	}
	return found
}

// TestScenario plays every folder of testdata and compares its log word for
// word. With -v it prints the log, with -update it writes it anew; what the
// script expects must hold either way. A world has one goroutine: the race
// detector sees one in eight, make sim plays all of them, twice.
func TestScenario(t *testing.T) {
	step := 1
	if underRace {
		step = 8
	}
	for i, dir := range folders(t) {
		if i%step != 0 {
			continue
		}
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			s, err := LoadScenario(dir)
			if err != nil {
				t.Fatal(err)
			}
			log, err := s.Play()
			t.Logf("%s\n%s", strings.TrimSpace(s.Readme), log)
			if err != nil {
				t.Fatal(err)
			}
			if golden.Updating() {
				golden.Write(t, filepath.Join(dir, "log"), log)
				return
			}
			if log != s.Log {
				t.Errorf("the decisions differ from %s/log at line %d; read them, then write them anew with -update", dir, differs(log, s.Log))
			}
			if again, _ := s.Play(); again != log {
				t.Errorf("two plays of one script differ at line %d", differs(log, again))
			}
		})
	}
}

func differs(a, b string) int {
	left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range left {
		if i == len(right) || left[i] != right[i] {
			return i + 1
		}
	}
	return len(left)
}

// TestScenarioFolders: enough of them, each well formed, and nothing besides.
func TestScenarioFolders(t *testing.T) {
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	all, two := 0, 0
	name := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	for _, e := range entries {
		if e.Name() == "README.md" {
			continue
		}
		if !name.MatchString(e.Name()) {
			t.Errorf("testdata/%s: a folder's name is of small letters, digits and hyphens", e.Name())
		}
		s, err := LoadScenario(filepath.Join("testdata", e.Name()))
		if err != nil {
			t.Error(err)
			continue
		}
		if s.Log == "" {
			t.Errorf("testdata/%s has no log: play it with -update and read what it says", e.Name())
		}
		all++
		if s.TwoNode() {
			two++
		}
	}
	t.Logf("%d scenarios, %d of them with both nodes", all, two)
	if all < 60 || two < 40 {
		t.Errorf("%d scenarios, %d with both nodes; want at least 60 and 40", all, two)
	}
}

// TestScenarioVerbsAreDescribed: whoever writes a scenario finds every word in
// the README.
func TestScenarioVerbsAreDescribed(t *testing.T) {
	data, err := os.ReadFile("testdata/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verbs() {
		if !strings.Contains(string(data), "`"+v.words+"`") {
			t.Errorf("testdata/README.md does not describe `%s`: %s", v.words, v.about)
		}
		if (v.do == nil) == (v.check == nil) {
			t.Errorf("%q must either do or check something", v.words)
		}
	}
}

// TestScenarioErrors: what is not well formed is refused, with the line.
func TestScenarioErrors(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"unknown verb":   {"guest g0 on node-a\n\n1s node-a explode\n", `script:3: "1s node-a explode": there is no such verb`},
		"unknown host":   {"guest g0 on node-a\n1s node-c power off\n", "script:2:"},
		"unknown guest":  {"guest g0 on node-a\n1s user stop g1\n", `"g1" is no guest`},
		"unknown alarm":  {"guest g0 on node-a\n1s expect no noise\n", "script:2:"},
		"too much":       {"guest g0 on node-a\n1s node-a power off now\n", `"now" is too much`},
		"missing":        {"guest g0 on node-a\n1s link node-a\n", "HOST is missing"},
		"backwards":      {"guest g0 on node-a\n2s switch off\n1s switch on\nexpect no alarm", "script:3:"},
		"no time":        {"guest g0 on node-a\n2s switch off\nswitch on\n", "it needs a time"},
		"no guest":       {"2s expect no alarm\n", "no guest"},
		"no expectation": {"guest g0 on node-a\n2s switch off\n", "must end with what is expected"},
		"bad setting":    {"gust g0 on node-a\n", "script:1:"},
		"bad policy":     {"guest g0 on node-a action wait\n", `"wait" is none of`},
		"bad mode":       {"mode fence\n", "script:1:"},
		"bad level":      {"guest g0 on node-a\n1s user level g0 high\n", `"high" is no level`},
		"nothing at all": {"", "no guest"},
	} {
		t.Run(name, func(t *testing.T) {
			err := (&Scenario{}).parse(test.script)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

// TestScenarioExpectationsFail: every expectation can fail. Each line is false
// in a calm or in a troubled world.
func TestScenarioExpectationsFail(t *testing.T) {
	const calm = "guest g0 on node-a\n5s "
	const trouble = "mode none\nguest g0 on node-a\n1s link node-a node-b cut\n5s node-a power off\n" +
		"9s user promote g0 on node-b confirm-peer-off accept-outdated\n12s "
	tested := []string{}
	for _, test := range []struct{ before, line string }{
		{calm, "expect g0 runs on node-b"}, {calm, "expect g0 runs nowhere"}, {calm, "expect g0 frozen on node-a"},
		{calm + "node-a power off\n6s ", "expect g0 runs somewhere"},
		{calm, "expect owner of g0 is node-b"}, {calm, "expect epoch of g0 is 2"}, {calm, "expect g0 outdated"},
		{calm, "expect g0 removed"}, {calm, "expect g0 lost writes"}, {calm, "expect alarm peer-lost on node-a"},
		{trouble, "expect g0 in sync"}, {trouble, "expect g0 lost nothing"}, {trouble, "expect g0 never away"},
		{trouble, "expect g0 away at most 1s"}, {trouble, "expect no alarm"}, {trouble, "expect no alarm on node-b"},
	} {
		s := &Scenario{}
		if err := s.parse(test.before + test.line); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Play(); err == nil || !strings.Contains(err.Error(), test.line+": but ") {
			t.Errorf("%s: got %v", test.line, err)
		}
		tested = append(tested, s.events[len(s.events)-1].verb.words)
	}
	for _, v := range expectations {
		if !slices.Contains(tested, v.words) {
			t.Errorf("nothing shows that %q can fail", v.words)
		}
	}
}
