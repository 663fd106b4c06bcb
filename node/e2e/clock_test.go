package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// agentAnswers says whether the agent in the guest does.
func agentAnswers(v api.VM) error {
	if v.GuestAgent == nil || !v.GuestAgent.Answers {
		return fmt.Errorf("the guest agent does not answer: %+v", v.GuestAgent)
	}
	return nil
}

// clockBehind asks the guest itself how late its clock is, at most five times: the
// quickest answer is wrong by half of what it took at most.
func (b *bench) clockBehind() (behind time.Duration, err error) {
	least := time.Hour
	for try := 0; try < 5 && least > 50*time.Millisecond; try++ {
		asked := time.Now()
		clock, err := b.AskClock(b.t.Context())
		took := time.Since(asked)
		if err != nil {
			return 0, err
		}
		if took < least {
			least, behind = took, asked.Add(took/2).Sub(clock)
		}
	}
	return behind, nil
}

// clockRight waits until the guest's clock is within a second of the host's.
func (b *bench) clockRight(bound time.Duration) {
	b.t.Helper()
	var behind time.Duration
	b.must(lab.Eventually(b.t.Context(), bound, func() (err error) {
		if behind, err = b.clockBehind(); err == nil && behind.Abs() > time.Second {
			err = fmt.Errorf("the guest's clock is %v behind", behind)
		}
		return err
	}))
	b.t.Logf("the guest's clock is %v behind", behind)
}

// happened waits for an event of the guest.
func (b *bench) happened(h *lab.Host, kind string) {
	b.t.Helper()
	b.must(lab.Eventually(b.t.Context(), time.Minute, func() error {
		missing := fmt.Errorf("there is no event %s", kind)
		err := h.API().Events(b.t.Context(), api.EventFilter{VM: lab.GuestName, Since: b.began}, func(e api.Event) error {
			if e.Kind == kind {
				b.t.Log(e.Message)
				missing = nil
			}
			return nil
		})
		return errors.Join(err, missing)
	}))
}

// TestClock: a guest with an agent has the right time after checkpoints, a
// pause and a takeover; taken over while paused it stays paused.
func TestClock(t *testing.T) {
	b := newBench(t, "--protection", "resume", "--interval", "0.25", "--append", lab.KernelLine()+" guest.agent=1", "--initrd", files.AgentInitrd)
	_, err := b.A.WaitState(t.Context(), 20*time.Second, agentAnswers)
	b.must(err)
	from := b.synced(b.A).Checkpoint.Sequence
	_, err = b.A.WaitState(t.Context(), time.Minute, func(v api.VM) error {
		if v.Checkpoint == nil || v.Checkpoint.Sequence < from+40 {
			return errors.New("there are no 40 checkpoints yet")
		}
		return nil
	})
	b.must(err)
	behind, err := b.clockBehind()
	b.must(err)
	if t.Logf("after 40 checkpoints its clock is %v behind", behind); behind.Abs() > 300*time.Millisecond {
		t.Error("the pauses were not made up for")
	}

	_, err = b.A.CLI(t.Context(), "vm", "pause", lab.GuestName)
	b.must(err)
	paused := time.Now()
	_, err = b.A.WaitState(t.Context(), 20*time.Second, func(v api.VM) error {
		if v.State != "paused" || v.Checkpoint == nil || !v.Checkpoint.Time.After(paused) {
			return fmt.Errorf("it is %s, checkpoint %+v", v.State, v.Checkpoint)
		}
		return nil
	})
	b.must(err)
	b.must(b.A.PowerCut(t.Context()))
	onB := func(v api.VM) error {
		if v.Owner != "b" || v.State != "paused" {
			return fmt.Errorf("on %s it is %s", v.Owner, v.State)
		}
		return nil
	}
	_, err = b.B.WaitState(t.Context(), 30*time.Second, onB)
	b.must(err)
	time.Sleep(3 * time.Second) // the clock's keeper must not wake it
	v, err := b.B.Show(t.Context())
	b.must(errors.Join(err, onB(v)))
	going := time.Now()
	_, err = b.B.CLI(t.Context(), "vm", "unpause", lab.GuestName)
	b.must(err)
	b.resumed(b.B, going)
	b.clockRight(10 * time.Second)
	b.happened(b.B, "clock-set")
	v, err = b.B.WaitState(t.Context(), 20*time.Second, agentAnswers)
	b.must(err)
	t.Logf("guest agent: %+v, clock %v s behind", v.GuestAgent, *v.GuestAgent.ClockBehindSeconds)

	// Back to a, running: the clock is right soon after the cut.
	b.must(b.A.PowerOn(t.Context()))
	b.synced(b.B)
	cut := time.Now()
	b.must(b.B.PowerCut(t.Context()))
	b.resumed(b.A, cut)
	b.clockRight(5 * time.Second)
}

// TestClockWithoutAgent: nobody sets the clock, and people hear of it; the guest
// is resumed and protected like any other.
func TestClockWithoutAgent(t *testing.T) {
	b := sharedBench(t, resumed)
	cut := b.powerCut(b.A)
	b.resumed(b.B, cut)
	behind, err := b.clockBehind()
	b.must(err)
	if t.Logf("its clock is %v behind", behind); behind < time.Second {
		t.Error("a guest that was away cannot have the right time by itself: the other test proves nothing")
	}
	b.happened(b.B, "clock-behind")
	v, err := b.B.Show(t.Context())
	b.must(err)
	if v.GuestAgent == nil || v.GuestAgent.Answers || v.GuestAgent.Reason == "" {
		t.Errorf("guest agent: %+v", v.GuestAgent)
	}
}
