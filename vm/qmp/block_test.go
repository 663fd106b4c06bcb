package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmctl/vm/qmp"
)

// fileNode is a raw file of 1 MiB as a block node.
func fileNode(t *testing.T, c qmp.Executor, node string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), node)
	check(t, os.WriteFile(path, nil, 0o600))
	check(t, os.Truncate(path, 1<<20))
	check(t, qmp.BlockdevAdd(background(t), c, map[string]any{
		"driver": "raw", "node-name": node, "file": map[string]any{"driver": "file", "filename": path},
	}))
	return path
}

// The product's chain between two QEMUs: one's NBD server is the other's target.
func TestMirrorOverNBD(t *testing.T) {
	t.Cleanup(func() { noGoroutines(t) })
	ctx := background(t)
	c := dial(t, startQEMU(t).path)
	events, cancel := c.Events()
	defer cancel()
	wait := func(name string) {
		t.Helper()
		_, err := qmp.WaitEvent(ctx, events, qmp.Named(name))
		check(t, err)
	}
	fileNode(t, c, "top0")
	fileNode(t, c, "backup")
	peer := dial(t, startQEMU(t).path)
	peerEvents, cancelPeer := peer.Events()
	defer cancelPeer()
	fileNode(t, peer, "replica")

	dir, err := os.MkdirTemp("", "qmp")
	check(t, err)
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "nbd")
	check(t, qmp.NBDServerStart(ctx, peer, socket))
	check(t, qmp.BlockExportAdd(ctx, peer, qmp.Export{ID: "ex0", Node: "replica", Name: "d0", Writable: true}))
	check(t, qmp.AddNBDNode(ctx, c, qmp.NBDNode{Node: "t0", Socket: socket, Export: "d0", ReconnectDelay: 10 * time.Second}))
	check(t, qmp.BlockdevMirror(ctx, c, qmp.Mirror{Job: "m0", Device: "top0", Target: "t0"}))
	wait("BLOCK_JOB_READY")

	jobs, err := qmp.QueryBlockJobs(ctx, c)
	check(t, err)
	if len(jobs) != 1 || jobs[0].ID != "m0" || jobs[0].Type != "mirror" || !jobs[0].Ready ||
		jobs[0].Status != "ready" || jobs[0].IOStatus != "ok" || jobs[0].Error != "" {
		t.Errorf("block jobs are %+v", jobs)
	}
	all, err := qmp.QueryJobs(ctx, c)
	check(t, err)
	if len(all) != 1 || all[0].ID != "m0" || all[0].Status != "ready" {
		t.Errorf("jobs are %+v", all)
	}
	check(t, qmp.Yank(ctx, c, "t0"))
	if err := qmp.Yank(ctx, c, "t0", "nobody"); !qmp.HasClass(err, qmp.ClassDeviceNotFound) {
		t.Errorf("yank of a node that is not there: %v", err)
	}
	check(t, qmp.BlockJobCancel(ctx, c, "m0", true))
	wait("BLOCK_JOB_CANCELLED")
	if err := qmp.BlockJobCancel(ctx, c, "m0", true); !qmp.HasClass(err, qmp.ClassDeviceNotActive) {
		t.Errorf("cancel of a job that is not there: %v", err)
	}
	check(t, qmp.BlockdevDel(ctx, c, "t0"))
	check(t, qmp.BlockExportDel(ctx, peer, "ex0", true))
	_, err = qmp.WaitEvent(ctx, peerEvents, qmp.Named("BLOCK_EXPORT_DELETED"))
	check(t, err)
	check(t, qmp.NBDServerStop(ctx, peer))
	check(t, qmp.Transaction(ctx, c,
		qmp.Action{Type: "block-dirty-bitmap-add", Data: map[string]string{"node": "top0", "name": "b0"}},
		qmp.Action{Type: "blockdev-backup", Data: map[string]string{
			"job-id": "b0", "device": "top0", "target": "backup", "sync": "full"}}))
	wait("BLOCK_JOB_COMPLETED")
}

// A mirror's target that stands still hangs QEMU's "stop", and its monitor with
// it. The deadline frees the caller; yank, out of band, frees QEMU.
func TestYankFreesQEMU(t *testing.T) {
	t.Cleanup(func() { noGoroutines(t) })
	ctx := background(t)
	c := dial(t, runQEMU(t, filepath.Join(t.TempDir(), "ram"), "-device", "virtio-scsi-pci,id=scsi0").path)
	remote := startQEMU(t)
	peer := dial(t, remote.path)
	fileNode(t, c, "top0")
	fileNode(t, peer, "replica")
	socket := filepath.Join(filepath.Dir(remote.path), "nbd")
	check(t, qmp.NBDServerStart(ctx, peer, socket))
	check(t, qmp.BlockExportAdd(ctx, peer, qmp.Export{ID: "ex0", Node: "replica", Name: "d0", Writable: true}))
	check(t, qmp.AddNBDNode(ctx, c, qmp.NBDNode{Node: "t0", Socket: socket, Export: "d0", ReconnectDelay: time.Minute}))
	check(t, c.Execute(ctx, "device_add", map[string]string{
		"driver": "scsi-hd", "bus": "scsi0.0", "drive": "top0", "id": "vd0"}, nil))
	check(t, qmp.BlockdevMirror(ctx, c, qmp.Mirror{Job: "m0", Device: "top0", Target: "t0"}))
	check(t, qmp.Cont(ctx, c))

	remote.freeze()
	defer remote.thaw()
	// A write as of the guest: it goes through the mirror.
	check(t, c.Execute(ctx, "human-monitor-command", map[string]string{
		"command-line": `qemu-io -d vd0 "aio_write 0 4k"`}, nil))
	stopped := make(chan error, 1)
	go func() { stopped <- qmp.Stop(ctx, c) }()
	var err error
	for !errors.Is(err, qmp.ErrNotSent) { // until "stop" is there, and hangs
		_, err = qmp.QueryStatus(within(t, 300*time.Millisecond), c)
	}
	wantError(t, err, context.DeadlineExceeded)
	began := time.Now()
	check(t, qmp.Yank(ctx, c, "t0"))
	check(t, <-stopped)
	t.Logf("stop was free %v after yank", time.Since(began))
	status, err := qmp.QueryStatus(ctx, c)
	check(t, err)
	if status.Status != qmp.StatePaused {
		t.Errorf("status is %+v", status)
	}
}

// The words of each command, against what QEMU's schema knows.
func TestArgumentsAreInTheSchema(t *testing.T) {
	s := script(t)
	schema := schema72(t)
	ctx := background(t)
	c := dial(t, s.Path())
	for _, command := range []string{"system_powerdown", "system_reset", "announce-self", "blockdev-add", "blockdev-del",
		"blockdev-mirror", "block-job-cancel", "job-dismiss", "nbd-server-start", "nbd-server-stop",
		"block-export-add", "block-export-del", "transaction", "remove-fd"} {
		s.Return(command, nil)
	}
	check(t, qmp.SystemPowerdown(ctx, c))
	check(t, qmp.SystemReset(ctx, c))
	check(t, qmp.AnnounceSelf(ctx, c))
	check(t, qmp.AddNBDNode(ctx, c, qmp.NBDNode{Node: "t0", ReconnectDelay: 10 * time.Second}))
	check(t, qmp.BlockdevDel(ctx, c, "t0"))
	check(t, qmp.BlockdevMirror(ctx, c, qmp.Mirror{Job: "m0", Device: "top0", Target: "t0"}))
	check(t, qmp.BlockJobCancel(ctx, c, "m0", true))
	check(t, qmp.JobDismiss(ctx, c, "m0"))
	check(t, qmp.NBDServerStart(ctx, c, "/s"))
	check(t, qmp.BlockExportAdd(ctx, c, qmp.Export{ID: "e", Node: "d0", Name: "d0"}))
	check(t, qmp.BlockExportDel(ctx, c, "e", false))
	check(t, qmp.RemoveSavedFD(ctx, c, 0))
	for _, call := range s.Calls("") {
		var args map[string]json.RawMessage
		check(t, call.Decode(&args))
		for name := range args {
			if !schema.Has(call.Command, name) &&
				!schema.Has(call.Command, "nbd", name) {
				t.Errorf("%s has no argument %s", call.Command, name)
			}
		}
	}
	mirror := s.Calls("blockdev-mirror")[0]
	want := `{"job-id":"m0","device":"top0","target":"t0","sync":"none","copy-mode":"write-blocking","on-target-error":"stop"}`
	if string(mirror.Args) != want {
		t.Errorf("blockdev-mirror has %s", mirror.Args)
	}
	if add := s.Calls("blockdev-add")[0]; string(add.Args) !=
		`{"driver":"nbd","node-name":"t0","server":{"type":"unix","path":""},"export":"","reconnect-delay":10}` {
		t.Errorf("blockdev-add has %s", add.Args)
	}
}
