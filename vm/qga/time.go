package qga

import (
	"context"
	"time"
)

// Ping asks whether the agent is there.
func (c *Client) Ping(ctx context.Context) error { return c.execute(ctx, "guest-ping", nil, nil) }

// Time is what the guest's clock shows.
func (c *Client) Time(ctx context.Context) (time.Time, error) {
	var ns int64
	if err := c.execute(ctx, "guest-get-time", nil, &ns); err != nil {
		return time.Time{}, err
	}
	return time.Unix(0, ns), nil
}

// SetTime sets the guest's clock. The agent may report an *Error although the
// clock is set, where it could not write the guest's RTC too: ask for Time.
func (c *Client) SetTime(ctx context.Context, t time.Time) error {
	return c.execute(ctx, "guest-set-time", map[string]any{"time": t.UnixNano()}, nil)
}
