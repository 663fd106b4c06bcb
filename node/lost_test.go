package node

import "testing"

// TestSameFailure: attempts that fail for one reason are one event, whatever their numbers.
func TestSameFailure(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"peer refused checkpoint 1/37: no room", "peer refused checkpoint 1/38: no room", true},
		{"dial 10.0.0.2:7440: refused", "dial 10.0.0.2:7440: no route to host", false},
		{"", "link lost", false},
	} {
		if same := withoutNumbers(c.a) == withoutNumbers(c.b); same != c.same {
			t.Errorf("%q and %q: %t", c.a, c.b, same)
		}
	}
}
