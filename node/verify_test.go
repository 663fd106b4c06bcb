package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/snapshot/replicator"
)

func TestVerifyIsDue(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		last time.Duration // before now
		want bool
	}{
		{0, false}, {verifyEvery - time.Second, false}, {verifyEvery, true}, {50 * verifyEvery, true},
		{-time.Hour, false},     // a clock that was set
		{-25 * time.Hour, true}, // or that starts in 1970
	} {
		if got := verifyIsDue(now.Add(-test.last), now); got != test.want {
			t.Errorf("last verified %v ago: due %t, want %t", test.last, got, test.want)
		}
	}
}

// Guests made together come due all over the week.
func TestVerificationsAreSpread(t *testing.T) {
	var days [7]int
	for i := range 700 {
		at := spread(time.Unix(int64(i), 0).UTC().String())
		if at < 0 || at >= verifyEvery {
			t.Fatalf("%v is no part of a week", at)
		}
		days[at/(24*time.Hour)]++
	}
	for day, n := range days {
		if n < 50 || n > 150 {
			t.Errorf("day %d has %d of 700", day, n)
		}
	}
}

func TestRangesText(t *testing.T) {
	ranges := make([]replicator.Range, 18)
	for i := range ranges {
		ranges[i] = replicator.Range{Disk: "d", Offset: int64(i), Length: 1}
	}
	want := "d 0+1, d 1+1, d 2+1, d 3+1, d 4+1, d 5+1, d 6+1, d 7+1, d 8+1, d 9+1, d 10+1, d 11+1, d 12+1, d 13+1, d 14+1, d 15+1, and 2 more"
	if got := rangesText(ranges); got != want {
		t.Errorf("%s", got)
	}
}
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for span, want := range map[time.Duration]time.Duration{
			0: 0, 300 * time.Millisecond: 300 * time.Millisecond, time.Minute: time.Second,
		} {
			began := time.Now()
			rest(t.Context(), span)
			if got := time.Since(began); got != want {
				t.Errorf("after a step of %v: rested %v, want %v", span, got, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		rest(ctx, time.Second)
		if got := time.Since(began); got != time.Millisecond {
			t.Errorf("the end was waited for %v", got)
		}
	})
}
