package recovery

import (
	"testing"
	"time"
)

func TestOrderRefusesCyclesAndUnknownNames(t *testing.T) {
	known := map[string][]string{"db": nil, "cache": {"db"}, "app": {"cache"}, "web": {"app"}, "old": {"old2"}, "old2": {"old"}}
	for _, test := range []struct {
		name  string
		after []string
		want  string
	}{
		{"web", []string{"db", "app"}, ""},
		{"new", []string{"web"}, ""},
		{"new", []string{"old"}, ""}, // a cycle of others is not this one's fault
		{"web", nil, ""},
		{"db", []string{"web"}, `recovery after "web": they would wait for each other (db after web after app after cache after db)`},
		{"db", []string{"cache"}, `recovery after "cache": they would wait for each other (db after cache after db)`},
		{"web", []string{"bd"}, `recovery after "bd": there is no guest of that name`},
	} {
		if got := CheckOrder(test.name, test.after, known); got != test.want {
			t.Errorf("%s after %v: %q, want %q", test.name, test.after, got, test.want)
		}
	}
}

func TestBackOffGrowsToABound(t *testing.T) {
	p := New("b", DefaultTiming())
	g := &guest{Guest: Guest{Policy: policy(nil)}}
	for failed, want := range map[int]time.Duration{1: 5 * second, 2: 10 * second, 3: 20 * second, 8: MaxBackoff, 1000: MaxBackoff} {
		g.failed = failed
		if got := p.backOffFor(g); got != want {
			t.Errorf("after %d failed starts: %v, want %v", failed, got, want)
		}
	}
	g.Policy.Backoff = 0
	if got := p.backOffFor(g); got != 0 {
		t.Errorf("no back-off asked for: %v", got)
	}
}

func TestOnlyAnEarlyEndOfARecoveryIsAFailedStart(t *testing.T) {
	timing := DefaultTiming()
	for _, test := range []struct {
		counts bool
		ran    time.Duration
		want   bool
	}{{true, 0, true}, {true, timing.Stable - 1, true}, {true, timing.Stable, false}, {false, 0, false}} {
		if got := (Start{Counts: test.counts}).FailedBy(test.ran, timing); got != test.want {
			t.Errorf("counts %v, ran %v: %v", test.counts, test.ran, got)
		}
	}
}
