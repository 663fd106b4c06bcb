package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/vm"
)

// TestIdentity: a QEMU that was upgraded is another one, although its path is
// the same.
func TestIdentity(t *testing.T) {
	program := filepath.Join(t.TempDir(), "qemu")
	trials := newTrials()
	if _, err := trials.identity(program); err == nil {
		t.Error("what is not there has an identity")
	}
	put := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(program, "one")
	first, err := trials.identity(program)
	again, errAgain := trials.identity(program)
	if err != nil || errAgain != nil || first != again || first == "" {
		t.Errorf("%q, %q, %v", first, again, err)
	}
	// As package managers do it.
	put(program+".new", "two")
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	second, err := trials.identity(program)
	if err != nil || second == first {
		t.Errorf("after an upgrade: %q, %v", second, err)
	}
	// In place, of the same size.
	put(program, "tri")
	if err := os.Chtimes(program, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if third, err := trials.identity(program); err != nil || third == second {
		t.Errorf("after a change in place: %q, %v", third, err)
	}
}

// TestVerdictIsOfAPair: what is known of two programs says nothing of others.
func TestVerdictIsOfAPair(t *testing.T) {
	trials := newTrials()
	known := trialPair{"shape", "a", "b"}
	trials.learn(known, trialVerdict{Loads: true})
	if v, ok := trials.recall(known); !ok || !v.Loads {
		t.Error("what was learned is forgotten")
	}
	for _, other := range []trialPair{{"shape", "a2", "b"}, {"shape", "a", "b2"}, {"shape2", "a", "b"}, {"shape", "b", "a"}} {
		if _, ok := trials.recall(other); ok {
			t.Errorf("%v is taken for known", other)
		}
	}
}

// TestSummaryCountsTrials: a guest whose state the peer would not load is not
// protected by resume.
func TestSummaryCountsTrials(t *testing.T) {
	for name, test := range map[string]struct {
		level     string
		trial     *api.Trial
		protected bool
		says      string
	}{
		"loads":            {vm.ProtectResume, &api.Trial{State: api.TrialLoads}, true, "1 of 1"},
		"refused":          {vm.ProtectResume, &api.Trial{State: api.TrialRefused, Reason: "vring.num"}, false, "the peer cannot load its state: vring.num"},
		"unknown":          {vm.ProtectResume, &api.Trial{State: api.TrialUnknown}, false, "not known yet"},
		"not said":         {vm.ProtectResume, nil, false, "not known yet"},
		"restart needs no": {vm.ProtectRestart, nil, true, "1 of 1"},
	} {
		s := api.Status{
			Cluster: &api.Cluster{Mode: "witness", Members: []api.Member{{Name: "a"}, {Name: "b"}}},
			VMs: []api.VM{{
				Name: "till", Run: true, Protection: api.Protection{Level: test.level},
				Replica: &api.Replica{State: "synced", Trial: test.trial},
			}},
		}
		if protected, text := summary(s); protected != test.protected || !strings.Contains(text, test.says) {
			t.Errorf("%s: %t, %q", name, protected, text)
		}
	}
}
