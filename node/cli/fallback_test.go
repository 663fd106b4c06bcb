package cli

import (
	"testing"
	"time"

	"vmctl/node/api"
)

func TestFallbackText(t *testing.T) {
	at, age := api.Time{Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)}, 90.0
	for want, f := range map[string]api.Fallback{
		"the disks as they were before the resync, of 2026-03-04 05:06:07, " + since(age) + " ago (3.0 MiB to keep it)": {To: api.FallbackDisks, Time: &at, AgeSeconds: &age, Bytes: 3 << 20},
		"its last checkpoint, of 2026-03-04 05:06:07, " + since(age) + " ago":                                           {To: api.FallbackCheckpoint, Time: &at, AgeSeconds: &age},
		"disks of no moment: nothing older is kept until the resync is complete":                                        {To: api.FallbackNothing},
		"something newer": {To: "something newer"},
	} {
		if got := fallbackText(f); got != want {
			t.Errorf("%+v: %q, want %q", f, got, want)
		}
	}
}
