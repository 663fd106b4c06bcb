package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// covered says whether the guest is covered as a level.
func covered(level string) func(api.VM) error {
	return func(v api.VM) error {
		if v.Protection.Now != level {
			return fmt.Errorf("it is covered as %q, replica %+v, trial %+v", v.Protection.Now, v.Replica, v.Replica.Trial)
		}
		return nil
	}
}

// TestStateWouldNotLoad: the peer's QEMU has a lesser CPU than the guest has
// seen. The guest is not shown as protected by resume, until that QEMU is
// upgraded; then it is resumed.
func TestStateWouldNotLoad(t *testing.T) {
	const lesser = "args=(); for a in \"$@\"; do [ \"$last\" != -cpu ] || a=qemu64; args+=(\"$a\"); last=$a; done\nexec %s \"${args[@]}\"\n"
	b := lastBench(t, &kind{prepare: func(l *lab.Lab) error {
		return l.B.Install("qemu-system-x86_64", fmt.Sprintf(lesser, l.B.OwnQEMU()))
	}, flags: []string{"--protection", "resume"}})
	b.alarm(b.A, "state-would-not-load", true)
	v, err := b.A.WaitState(t.Context(), 20*time.Second, covered("restart"))
	b.must(err)
	if v.Replica.Trial.State != api.TrialRefused || !strings.Contains(v.Replica.Trial.Reason, "the CPU lacks features") {
		t.Errorf("trial: %+v", v.Replica.Trial)
	}
	status, err := b.A.API().Status(t.Context())
	b.must(err)
	if t.Log(status.Summary); status.Protected || !strings.Contains(status.Summary, "would be booted, not resumed") {
		t.Errorf("protected: %t, %s", status.Protected, status.Summary)
	}

	b.must(b.B.Install("qemu-system-x86_64", fmt.Sprintf("exec %s \"$@\"\n", b.B.OwnQEMU())))
	_, err = b.A.WaitState(t.Context(), time.Minute, covered("resume"))
	b.must(err)
	b.alarm(b.A, "state-would-not-load", false)
	b.saved, err = b.A.WaitState(t.Context(), time.Minute, lab.SyncedSince(time.Now()))
	b.must(err)
	cut := time.Now()
	b.must(b.A.PowerCut(t.Context()))
	b.resumed(b.B, cut)
}
