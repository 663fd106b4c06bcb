package node

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/node/notify"
)

// TestSeldom: what a guest or a stranger can cause as often as it likes is recorded now
// and then, and the rest is counted.
func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		j := newJournal(nil, "a", slog.New(slog.DiscardHandler), func(notify.Event) { told++ })
		for range 1000 {
			j.seldom(info, "guest-reset", "web", "web reboots")
			time.Sleep(time.Second / 10)
		}
		j.seldom(info, "guest-reset", "db", "db reboots")
		if len(j.pending) != 11 || told != 11 {
			t.Fatalf("%d events, %d told", len(j.pending), told)
		}
		if first := j.pending[0].event.Message; first != "web reboots" {
			t.Error(first)
		}
		if second := j.pending[1].event.Message; !strings.HasPrefix(second, "web reboots (and 99 times more since ") {
			t.Error(second)
		}
		if other := j.pending[10].event; other.Guest != "db" || other.Message != "db reboots" {
			t.Errorf("%+v", other)
		}
	})
}
