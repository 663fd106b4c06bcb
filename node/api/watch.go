package api

import (
	"context"
	"net/http"
	"time"
)

// pingEvery is how often, and how long, an agent that has not answered yet is
// asked whether it is there; pingsMissed in a row end the call. Calls
// themselves may take any time: a big image is copied.
const (
	pingEvery   = 10 * time.Second
	pingsMissed = 2
)

// watched gives a context that ends when the agent is found to be there but not
// to answer: stopped, or stuck. stop waits for the watcher.
func (c *Client) watched(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(c.ping)
		defer ticker.Stop()
		for missed := 0; missed < pingsMissed; {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if c.answers(ctx) {
				missed = 0
			} else {
				missed++
			}
		}
		cancel(Errorf(Unreachable, "the agent at %s does not answer", c.socket).
			WithHint("It is there but stuck or stopped; look at its log. The request may have been done or not."))
	}()
	return ctx, func() { cancel(nil); <-done }
}

// answers says whether the agent answers anything at all.
func (c *Client) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.ping)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://vmctl/v1", nil)
	if err != nil {
		return false
	}
	response, err := c.http.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return true
}
