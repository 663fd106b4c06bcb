package cli

import (
	"testing"

	"vmctl/node/api"
)

func TestVerifiedText(t *testing.T) {
	for want, v := range map[string]api.Verification{
		"equal, 2.0 KiB compared":    {State: api.VerifyEqual, ComparedBytes: 2048, TotalBytes: 2048},
		"it differed, 64 B repaired": {State: api.VerifyRepaired, ComparedBytes: 2048, RepairedBytes: 64},
		"equal, 2.0 KiB compared, 10 B written too often to be judged": {
			State: api.VerifyEqual, ComparedBytes: 2048, UnsettledBytes: 10,
		},
	} {
		if got := verifiedText(v); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := verifyProgress(api.Verification{VM: "web", State: api.VerifyComparing, ComparedBytes: 1, TotalBytes: 2048}); got != "web: 1 B of 2.0 KiB compared" {
		t.Error(got)
	}
	if got := verifiedLine(nil); got != "never" {
		t.Error(got)
	}
}

func TestResyncText(t *testing.T) {
	for want, r := range map[string]api.Replica{
		"":                  {State: "synced", Progress: 1},
		" 0 %":              {State: "resync"},
		" 25 %, 9.0 s left": {State: "resync", Progress: 0.25, RemainingSeconds: 9},
		" 50 %, 1m0s left":  {State: "resync", Progress: 0.5, RemainingSeconds: 60},
	} {
		if got := resyncText(&r); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}
