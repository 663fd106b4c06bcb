package replicator

import (
	"path/filepath"
	"testing"
	"time"

	"vmctl/snapshot/durable"
)

// TestFollowedUntil: the disks of a replica whose link was cut are said to be the
// guest's as of when its owner fell silent, not as of when the link was found dead.
func TestFollowedUntil(t *testing.T) {
	for name, c := range map[string]struct {
		silent time.Duration // before the link ended; 0: never
		frame  time.Duration
		want   time.Duration
	}{
		"the owner ended":           {frame: 2 * time.Second},
		"it fell silent before":     {silent: 7 * time.Second, frame: 8 * time.Second, want: 7 * time.Second},
		"and was heard since":       {silent: 7 * time.Second, frame: time.Second},
		"nothing was ever received": {silent: 7 * time.Second, frame: 1e6 * time.Second, want: 7 * time.Second},
	} {
		ended := time.Now()
		identity, err := OpenIdentity(durable.Files{}, filepath.Join(t.TempDir(), "identity"), "boot", nil)
		must(t, err)
		must(t, identity.SayWhole(ended.Add(-time.Hour)))
		r := NewReceiver(ReceiverOptions{Guest: "g", Identity: identity, Silent: func() time.Time {
			if c.silent == 0 {
				return time.Time{}
			}
			return ended.Add(-c.silent)
		}}, quiet())
		r.heard.Store(ended.Add(-c.frame).UnixNano())
		since, err := identity.Wake()
		must(t, err)
		must(t, r.rest(since))
		if got := ended.Sub(r.Content().Time); (got - c.want).Abs() > time.Second {
			t.Errorf("%s: whole %v before the end, want %v", name, got, c.want)
		}
	}
}
