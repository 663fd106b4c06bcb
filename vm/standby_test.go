package vm

import (
	"strings"
	"testing"
)

func TestNoStandby(t *testing.T) {
	tests := map[string]struct {
		spec Spec
		says string
	}{
		"waits":       {Spec{Protection: Protection{Level: ProtectResume}, NICs: []NIC{{Type: NICBridge}, {Type: NICUser}}}, ""},
		"unprotected": {Spec{Protection: Protection{Level: ProtectNone}}, "no checkpoints"},
		"disks only":  {Spec{Protection: Protection{Level: ProtectRestart}}, "no checkpoints"},
		"not wanted":  {Spec{Protection: Protection{Level: ProtectResume}, Standby: new(bool)}, "standby: false"},
		"booted":      {Spec{Protection: Protection{Level: ProtectResume}, Recovery: Recovery{Action: RecoverRestart}}, "policy boots it"},
		"tap":         {Spec{Protection: Protection{Level: ProtectResume}, NICs: []NIC{{}, {Type: NICTap}}}, "tap"},
		"ports":       {Spec{Protection: Protection{Level: ProtectResume}, NICs: []NIC{{Type: NICUser, Forward: []string{"tcp:127.0.0.1:1:1"}}}}, "ports"},
	}
	for name, test := range tests {
		got := test.spec.NoStandby()
		if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
