package node

import (
	"testing"
	"time"
)

func TestContact(t *testing.T) {
	var c contact
	at := func(seconds float64) time.Time { return time.Unix(1000, int64(seconds*1e9)) }
	want := func(now float64, fell time.Time) {
		t.Helper()
		if got := c.silent(at(now)); !got.Equal(fell) {
			t.Errorf("at %v s: silent since %v, want %v", now, got, fell)
		}
	}
	want(5, time.Time{}) // never heard
	for second := 10.0; second < 12; second += 0.25 {
		c.heard(at(second))
	}
	want(12, time.Time{})
	want(13, at(11.75)) // it is now
	c.heard(at(20))
	want(20.5, at(11.75)) // it was
	c.heard(at(20.5))
	want(40, at(20.5))
}
