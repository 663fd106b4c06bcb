package vm

import (
	"fmt"
	"time"
)

// maxBackoff bounds the wait before a restart.
const maxBackoff = 10 * time.Minute

// Decide says whether a guest that ended is started again on this host, after
// which wait, and why. history holds the times of earlier restarts. It is pure.
//
// A guest that was told to stop stays stopped whatever the policy, and one
// whose lease was taken away is no longer this host's to start. One that was
// stopped at the end of its lease has not failed: it starts whatever the policy.
func Decide(policy Restart, history []time.Time, now time.Time, exit ExitReason) (restart bool, after time.Duration, reason string) {
	switch {
	case exit == ExitStopped:
		return false, 0, "it was stopped on request"
	case exit == ExitIsolated:
		return true, 0, "its lease had ended"
	case exit == ExitRevoked:
		return false, 0, "this host lost the right to run it"
	case policy.Policy != RestartAlways && policy.Policy != RestartOnFailure:
		return false, 0, "restart policy is " + either(policy.Policy, RestartNever)
	case exit == ExitShutdown && policy.Policy == RestartOnFailure:
		return false, 0, "the guest shut itself down, which is no failure"
	}
	window := seconds(policy.WindowSeconds)
	recent := 0
	for _, t := range history {
		if now.Sub(t) < window {
			recent++
		}
	}
	if recent >= policy.Attempts {
		return false, 0, fmt.Sprintf("it was restarted %d times within %v already, look at its log and start it by hand", recent, window)
	}
	after = min(seconds(policy.BackoffSeconds), maxBackoff)
	for range recent {
		after = min(2*after, maxBackoff)
	}
	return true, after, fmt.Sprintf("%s: restart %d of %d within %v", exit, recent+1, policy.Attempts, window)
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
