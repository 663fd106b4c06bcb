package qmp

import (
	"context"
	"time"
)

// BlockdevAdd opens a block node; options are those of QEMU's BlockdevOptions.
func BlockdevAdd(ctx context.Context, c Executor, options any) error {
	return c.Execute(ctx, "blockdev-add", options, nil)
}

// BlockdevDel closes a block node that nothing uses.
func BlockdevDel(ctx context.Context, c Executor, node string) error {
	return c.Execute(ctx, "blockdev-del", nodeName{node}, nil)
}

type nodeName struct {
	Node string `json:"node-name"`
}

// NBDNode is a block node that is an NBD client on a unix socket.
type NBDNode struct {
	Node   string // node-name
	Socket string // path of the server
	Export string
	// ReconnectDelay is how long requests wait for a lost server before they
	// fail; whole seconds, 0 fails them at once and never connects again.
	ReconnectDelay time.Duration
}

// AddNBDNode connects to the server. It hangs with a server that does not greet,
// and QEMU with it. Yank does not help before the node is there (measured with
// 7.2): only the server's hanging up does, so listen with something that answers.
func AddNBDNode(ctx context.Context, c Executor, n NBDNode) error {
	type server struct {
		Type string `json:"type"`
		Path string `json:"path"`
	}
	return BlockdevAdd(ctx, c, struct {
		Driver    string `json:"driver"`
		Node      string `json:"node-name"`
		Server    server `json:"server"`
		Export    string `json:"export"`
		Reconnect int64  `json:"reconnect-delay"`
	}{"nbd", n.Node, server{"unix", n.Socket}, n.Export, int64(n.ReconnectDelay / time.Second)})
}

// Mirror is a mirror that holds every write of the guest until the target has it.
type Mirror struct {
	Job    string // job id
	Device string // node to copy: the guest's top node
	Target string // node to copy to
	// Sync is what QEMU copies itself: "none" (the default) or "full".
	Sync string
}

// BlockdevMirror starts the job: copy-mode=write-blocking, on-target-error=stop.
// With sync=none it is ready at once; the first copy is then somebody else's.
func BlockdevMirror(ctx context.Context, c Executor, m Mirror) error {
	if m.Sync == "" {
		m.Sync = "none"
	}
	return c.Execute(ctx, "blockdev-mirror", struct {
		Job      string `json:"job-id"`
		Device   string `json:"device"`
		Target   string `json:"target"`
		Sync     string `json:"sync"`
		CopyMode string `json:"copy-mode"`
		OnError  string `json:"on-target-error"`
	}{m.Job, m.Device, m.Target, m.Sync, "write-blocking", "stop"}, nil)
}

// Action is one part of a Transaction: its type and that type's data.
type Action struct {
	Type string `json:"type"`
	Data any    `json:"data"`
}

// Transaction does all actions at one instant, or none.
func Transaction(ctx context.Context, c Executor, actions ...Action) error {
	return c.Execute(ctx, "transaction", struct {
		Actions []Action `json:"actions"`
	}{actions}, nil)
}

// Yank breaks the connections of block nodes, so that whatever hangs in them
// fails. It works while every other command hangs. If one of the nodes cannot be
// yanked, none is (ClassDeviceNotFound).
//
// On a unix socket it frees who waits for a reply, but not who waits to send
// (measured with 7.2: a write larger than the socket's buffer, to a server that
// does not read, waits on and on). There only the server helps, by reading or by
// its end.
func Yank(ctx context.Context, c OOBExecutor, nodes ...string) error {
	type instance struct {
		Type string `json:"type"`
		Node string `json:"node-name"`
	}
	instances := make([]instance, len(nodes))
	for i, n := range nodes {
		instances[i] = instance{"block-node", n}
	}
	return c.ExecuteOOB(ctx, "yank", struct {
		Instances []instance `json:"instances"`
	}{instances}, nil)
}
