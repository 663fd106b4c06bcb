package doctor

import (
	"encoding/json"
	"strings"
	"testing"
)

// checked fails on a finding that leaves its reader alone.
func checked(t *testing.T, findings []Finding) map[string]Finding {
	t.Helper()
	by := map[string]Finding{}
	for _, f := range findings {
		if _, twice := by[f.Subject]; twice || f.Subject == "" || f.Found == "" {
			t.Errorf("%+v says too little, or is there twice", f)
		}
		if f.Grade != Good && f.Grade != Weak && f.Grade != Bad {
			t.Errorf("%+v has no grade", f)
		}
		if f.Grade != Good && f.Advice == "" {
			t.Errorf("%+v does not say what to do", f)
		}
		if strings.Contains(f.Found+f.Advice, "\n") {
			t.Errorf("%+v is of more than one line", f)
		}
		by[f.Subject] = f
	}
	return by
}

func TestExamine(t *testing.T) {
	by := checked(t, Examine(t.Context()))
	if f := by["QEMU"]; f.Grade != Good || !strings.Contains(f.Found, "qemu-system-x86_64") {
		t.Errorf("%+v", f)
	}
	for _, subject := range []string{"KVM", "memory", "/dev/shm", "clock"} {
		if by[subject].Subject == "" {
			t.Errorf("nothing is said of %s", subject)
		}
	}
	if f := by["clock"]; f.Grade != Good {
		t.Errorf("%+v", f)
	}
}

func TestMissingQEMU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	f := checked(t, Examine(t.Context()))["QEMU"]
	if f.Grade != Bad || !strings.Contains(f.Found, "qemu-img") || !strings.Contains(f.Advice, "apt install") {
		t.Errorf("%+v", f)
	}
}

func TestWatchdog(t *testing.T) {
	none, null := watchdogOf(t.TempDir()+"/none"), watchdogOf("/dev/null")
	checked(t, []Finding{none})
	if none.Grade != Weak || !strings.Contains(none.Advice, "vmctl.yaml") {
		t.Errorf("%+v", none)
	}
	if null.Grade == Bad || !strings.Contains(null.Found, "/dev/null") {
		t.Errorf("%+v", null)
	}
}

func TestJSON(t *testing.T) {
	got, err := json.Marshal(Finding{Bad, "s", "f", "a"})
	if err != nil || string(got) != `{"grade":"BAD","subject":"s","found":"f","advice":"a"}` {
		t.Errorf("%s, %v", got, err)
	}
}
