package qmp

import "context"

// NBDServerStart starts QEMU's own NBD server on a unix socket. QEMU has one.
func NBDServerStart(ctx context.Context, c Executor, socketPath string) error {
	type path struct {
		Path string `json:"path"`
	}
	type address struct {
		Type string `json:"type"`
		Data path   `json:"data"`
	}
	return c.Execute(ctx, "nbd-server-start", struct {
		Addr address `json:"addr"`
	}{address{"unix", path{socketPath}}}, nil)
}

// NBDServerStop stops it and removes all its exports.
func NBDServerStop(ctx context.Context, c Executor) error {
	return c.Execute(ctx, "nbd-server-stop", nil, nil)
}

// Export is a node offered by the NBD server.
type Export struct {
	ID       string `json:"id"`
	Node     string `json:"node-name"`
	Name     string `json:"name"` // what clients ask for
	Writable bool   `json:"writable"`
}

// BlockExportAdd offers a node to NBD clients.
func BlockExportAdd(ctx context.Context, c Executor, e Export) error {
	return c.Execute(ctx, "block-export-add", struct {
		Type string `json:"type"`
		Export
	}{"nbd", e}, nil)
}

// BlockExportDel withdraws an export; clients still connected are an error,
// unless hard. It is gone at the event BLOCK_EXPORT_DELETED.
func BlockExportDel(ctx context.Context, c Executor, id string, hard bool) error {
	mode := "safe"
	if hard {
		mode = "hard"
	}
	return c.Execute(ctx, "block-export-del", struct {
		ID   string `json:"id"`
		Mode string `json:"mode"`
	}{id, mode}, nil)
}
