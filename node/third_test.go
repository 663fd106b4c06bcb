package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"vmctl/node/api"
	"vmctl/node/fence"
)

// fenceScript is a fencing device that says what a file beside it says.
const fenceScript = `#!/bin/sh
action=
while read -r line; do case $line in action=*) action=${line#*=};; esac; done
case $action in
metadata) echo '<?xml version="1.0" ?><resource-agent name="f"><parameters/><actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/></actions></resource-agent>';;
status) echo "Status: $(cat "$(dirname "$0")/power")"; [ "$(cat "$(dirname "$0")/power")" = ON ] || exit 2;;
esac
`

// device writes a fencing device that says the power is as given.
func device(t *testing.T, power string) *fence.Device {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"agent": fenceScript, "power": power} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &fence.Device{Agent: filepath.Join(dir, "agent")}
}

// TestModes: what is refused before a third vote is changed, and what is shown
// after.
func TestModes(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	ctx := t.Context()
	set := func(n *agent, change api.ModeChange) error { return of(n.SetMode(ctx, change)) }
	want(t, "an unknown mode", set(a, api.ModeChange{Mode: "luck"}), api.Usage, "none, fence or bias")
	want(t, "the mode witness", set(a, api.ModeChange{Mode: "witness"}), api.Usage, "witness add")
	want(t, "a bias to nobody", set(a, api.ModeChange{Mode: "bias", Bias: "c"}), api.Usage, "--bias")
	want(t, "fencing without a device", set(a, api.ModeChange{Mode: "fence"}), api.Conflict, "no fencing device")
	for _, step := range []struct {
		name         string
		ours, theirs *fence.Device
		code         api.Code
		say          string
	}{
		{"fencing when only one side has a device", device(t, "ON"), nil, api.Conflict, "node b has no fencing device"},
		{"a device that is another machine's", device(t, "OFF"), device(t, "ON"), api.Failed, "another machine"},
		{"the peer's device that is another machine's", device(t, "ON"), device(t, "OFF"), api.Failed, "node b"},
	} {
		a, b = again(t, a, step.ours), again(t, b, step.theirs)
		hear(t, a, b)
		want(t, step.name, set(a, api.ModeChange{Mode: "fence"}), step.code, step.say)
	}
	b = again(t, b, device(t, "ON"))
	hear(t, a, b)
	cluster, err := a.SetMode(ctx, api.ModeChange{Mode: "fence", DelaySeconds: 3})
	if err != nil || cluster.Mode != "fence" || cluster.FenceDelaySeconds != 3 {
		t.Errorf("the mode fence: %+v, %v", cluster, err)
	}
	eventually(t, "the other node to have it too", func() bool {
		cluster, err := b.Cluster(ctx)
		return err == nil && cluster.Mode == "fence"
	})
	b.stop()
	eventually(t, "the peer to be missed", func() bool {
		cluster, err := a.Cluster(ctx)
		return err == nil && !cluster.Members[1].Reachable
	})
	want(t, "a change while the peer is silent", set(a, api.ModeChange{Mode: "none"}), api.Unsafe, "silent")
	want(t, "a witness while the peer is silent", of(a.AddWitness(ctx, "127.0.0.1:1", "vmctl-x")), api.Usage, "token")
}

// again restarts an agent with another fencing device.
func again(t *testing.T, a *agent, d *fence.Device) *agent {
	t.Helper()
	a.stop()
	config := a.config
	config.Fence = d
	return run(t, config)
}
