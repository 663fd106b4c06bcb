package snapshot

import (
	"context"
	"time"
)

// turnPatience is how long a guest's pause waits for another guest's at most:
// one that hangs holds up nobody else's checkpoints.
const turnPatience = 200 * time.Millisecond

// Turns has the guests of a node stopped one after the other: pauses at the
// same time share the processors, and all of them are longer. It is safe for
// concurrent use; a nil *Turns is no limit.
type Turns struct{ taken chan struct{} }

// NewTurns returns turns that nobody has.
func NewTurns() *Turns { return &Turns{taken: make(chan struct{}, 1)} }

// take waits for the turn, which release ends. After turnPatience it goes
// without.
func (t *Turns) take(ctx context.Context) (release func()) {
	if t == nil {
		return func() {}
	}
	patience := time.NewTimer(turnPatience)
	defer patience.Stop()
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken }
	case <-patience.C:
	case <-ctx.Done():
	}
	return func() {}
}
