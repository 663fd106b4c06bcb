package api

import (
	"context"
	"fmt"
	"net/http"
)

// Maintenance takes the node out of service, or puts it back.
func (c *Client) Maintenance(ctx context.Context, on bool) (out Maintenance, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/node/maintenance", map[string]bool{"on": on}, &out)
}

// Shutdown empties the node and ends its agent.
func (c *Client) Shutdown(ctx context.Context) (out Shutdown, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/node/shutdown", nil, &out)
}

// NotifyTest sends a test notification to every target.
func (c *Client) NotifyTest(ctx context.Context) (out []NotifyTest, err error) {
	return out, c.call(ctx, http.MethodPost, "/v1/node/notify-test", nil, &out)
}

// RemoveKept removes disks that a former owner wrote last; here: only on the
// node that is asked.
func (c *Client) RemoveKept(ctx context.Context, name string, epoch uint64, here bool) error {
	return c.callVM(ctx, http.MethodDelete, "vms", name, fmt.Sprintf("/kept/%d?here=%t", epoch, here), nil, nil)
}
