package cli

import (
	"fmt"
	"time"

	"vmctl/node/api"
)

// fallbackText says what a replica that is not in sync could go back to.
func fallbackText(f api.Fallback) string {
	what := map[string]string{
		api.FallbackCheckpoint: "its last checkpoint",
		api.FallbackDisks:      "the disks as they were before the resync",
		api.FallbackNothing:    "disks of no moment: nothing older is kept until the resync is complete",
	}[f.To]
	if what == "" { // of a newer node
		what = f.To
	}
	if f.Time != nil && f.AgeSeconds != nil {
		what += fmt.Sprintf(", of %s, %s ago", f.Time.Local().Format(time.DateTime), since(*f.AgeSeconds))
	}
	if f.Bytes > 0 {
		what += fmt.Sprintf(" (%s to keep it)", bytesText(f.Bytes))
	}
	return what
}
