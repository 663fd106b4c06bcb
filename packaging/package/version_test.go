package packages

import (
	"os/exec"
	"testing"
	"time"
)

var committed = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

func TestVersion(t *testing.T) {
	for described, want := range map[string]string{
		"1.2.3":                  "1.2.3",
		"v1.2.3":                 "1.2.3",
		"v1.2.3-dirty":           "1.2.3+dirty",
		"v1.2.3-rc1":             "1.2.3~rc1",
		"v1.2.3-rc.2-4-gabc1234": "1.2.3~rc.2+4.gabc1234",
		"v0.3-12-gabc1234-dirty": "0.3+12.gabc1234.dirty",
		"abc1234":                "0.0.0+20260203040506.gabc1234",
		"1234567-dirty":          "0.0.0+20260203040506.g1234567.dirty",
		"0.0.0":                  "0.0.0",
		"":                       "",
		"latest":                 "",
		"1.2.3 ":                 "",
		"1.2.3;reboot":           "",
		"1":                      "",
	} {
		got, err := Version(described, committed)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", described, got, err, want)
		}
	}
}

func TestVersionsSort(t *testing.T) {
	previous := ""
	for _, step := range []struct {
		described string
		later     time.Duration
	}{
		{"fffffff", 0}, {"0000000", time.Second}, {"v0.1.0-rc1", 0}, {"v0.1.0-rc1-2-gfff0000", 0}, {"v0.1.0-rc2", 0},
		{"v0.1.0", 0}, {"v0.1.0-9-gfff0000", 0}, {"v0.1.0-10-gaaa0000", 0}, {"v0.1.1", 0}, {"v0.10.0", 0},
	} {
		version, err := Version(step.described, committed.Add(step.later))
		if err != nil {
			t.Fatal(err)
		}
		if previous != "" {
			if err := exec.Command("dpkg", "--compare-versions", previous, "lt", version).Run(); err != nil {
				t.Errorf("dpkg does not sort %s before %s", previous, version)
			}
			out, err := exec.Command("rpm", "--eval", `%{lua:print(rpm.vercmp("`+previous+`", "`+version+`"))}`).CombinedOutput()
			if string(out) != "-1\n" {
				t.Errorf("rpm does not sort %s before %s: %s %v", previous, version, out, err)
			}
		}
		previous = version
	}
}

func TestSourceDate(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	if date, err := sourceDate(t.Context(), "."); err != nil || date.Unix() != 1700000000 {
		t.Errorf("of the environment: %v, %v", date, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if date, err := sourceDate(t.Context(), "."); err == nil {
		t.Errorf("a date that is none: %v", date)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "")
	dir := t.TempDir()
	if date, err := sourceDate(t.Context(), dir); err != nil || date.Year() != 1980 {
		t.Errorf("without git: %v, %v", date, err)
	}
	for _, words := range [][]string{
		{"init", "-q"},
		{"-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-q", "--allow-empty", "-m", "x"},
	} {
		cmd := exec.Command("git", words...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Environ(), "GIT_COMMITTER_DATE=1600000000 +0200")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", words, err, out)
		}
	}
	if date, err := sourceDate(t.Context(), dir); err != nil || date.Unix() != 1600000000 {
		t.Errorf("of the commit: %v, %v", date, err)
	}
}
