package vm

import (
	"strings"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(seconds ...int) (times []time.Time) {
		for _, s := range seconds {
			times = append(times, now.Add(-time.Duration(s)*time.Second))
		}
		return times
	}
	policy := func(name string) Restart {
		return Restart{Policy: name, Attempts: 3, WindowSeconds: 60, BackoffSeconds: 2}
	}
	tests := []struct {
		name    string
		policy  Restart
		history []time.Time
		exit    ExitReason
		restart bool
		after   time.Duration
		says    string
	}{
		{"never", policy(RestartNever), nil, ExitCrashed, false, 0, "policy is never"},
		{"no policy", Restart{}, nil, ExitCrashed, false, 0, "policy is never"},
		{"crash", policy(RestartOnFailure), nil, ExitCrashed, true, 2 * time.Second, "restart 1 of 3"},
		{"panic", policy(RestartOnFailure), nil, ExitPanicked, true, 2 * time.Second, "guest-panicked"},
		{"host reset", policy(RestartOnFailure), nil, ExitLost, true, 2 * time.Second, "lost"},
		{"launch failed", policy(RestartOnFailure), nil, ExitFailed, true, 2 * time.Second, "launch-failed"},
		{"shut down", policy(RestartOnFailure), nil, ExitShutdown, false, 0, "no failure"},
		{"shut down, always", policy(RestartAlways), nil, ExitShutdown, true, 2 * time.Second, "guest-shutdown"},
		{"stopped, always", policy(RestartAlways), nil, ExitStopped, false, 0, "on request"},
		{"isolated, never", policy(RestartNever), nil, ExitIsolated, true, 0, "lease"},
		{"revoked, always", policy(RestartAlways), nil, ExitRevoked, false, 0, "lost the right"},
		{"second", policy(RestartOnFailure), ago(10), ExitCrashed, true, 4 * time.Second, "restart 2 of 3"},
		{"third", policy(RestartOnFailure), ago(30, 10), ExitCrashed, true, 8 * time.Second, "restart 3 of 3"},
		{"too many", policy(RestartOnFailure), ago(50, 30, 10), ExitCrashed, false, 0, "3 times within 1m0s"},
		{"old ones do not count", policy(RestartOnFailure), ago(600, 60, 10), ExitCrashed, true, 4 * time.Second, "restart 2 of 3"},
		{"clock set back", policy(RestartOnFailure), ago(-10, -20, -30), ExitCrashed, false, 0, "3 times"},
		{"bounded", Restart{RestartAlways, 1000, 1e6, 60}, ago(make([]int, 900)...), ExitCrashed, true, maxBackoff, "901 of 1000"},
	}
	for _, test := range tests {
		restart, after, reason := Decide(test.policy, test.history, now, test.exit)
		if restart != test.restart || after != test.after || !strings.Contains(reason, test.says) {
			t.Errorf("%s: got %v, %v, %q", test.name, restart, after, reason)
		}
	}
}
