package node

import (
	"context"
	"testing"
	"time"

	"vmctl/ha"
	"vmctl/snapshot"
)

// commands remembers what a monitor was asked.
type commands map[string]map[string]any

func (c commands) Execute(_ context.Context, command string, args, _ any) error {
	if args, ok := args.(map[string]any); ok {
		c[command] = args
	}
	return nil
}

// TestMirrorWaitsLongerThanALease: QEMU holds a write back for an agent that is
// away until the guard has frozen the guest; were it to give up before, the guest
// would write on where no replica sees it.
func TestMirrorWaitsLongerThanALease(t *testing.T) {
	asked := commands{}
	mirror := snapshot.Mirror{Monitor: asked, Target: "t", Export: "e", Disks: []snapshot.MirrorDisk{{Name: "d", Size: 1, Top: "top0", Base: "d0"}}}
	if err := mirror.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	seconds, _ := asked["blockdev-add"]["reconnect-delay"].(int)
	timing := ha.DefaultTiming()
	if waits, freezes := time.Duration(seconds)*time.Second, timing.Lease+timing.Stop; waits < 2*freezes {
		t.Errorf("the mirror waits %v for the agent, the guard freezes the guest after %v", waits, freezes)
	}
	if asked["blockdev-mirror"]["on-target-error"] != "stop" || asked["blockdev-mirror"]["copy-mode"] != "write-blocking" {
		t.Errorf("the mirror job is %v", asked["blockdev-mirror"])
	}
}
