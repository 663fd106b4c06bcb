package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"vmctl/node/api"
	"vmctl/node/e2e/lab"
)

// wellWithin is how long after the last fault everything must be well again.
const wellWithin = 60 * time.Second

// heal ends all faults that have not ended by themselves.
func (c *chaos) heal() {
	ctx := c.t.Context()
	for _, h := range c.hosts {
		c.must(h.back(ctx))
	}
	c.must(c.Heal(ctx))
}

// check waits until all is well and judges what was seen meanwhile.
func (c *chaos) check() {
	ctx := c.t.Context()
	healed := time.Now()
	err := lab.Eventually(ctx, wellWithin, func() error { return c.well(ctx, healed) })
	if err != nil {
		c.wrong("not well %v after the last fault: %v", wellWithin, err)
	} else {
		c.say("well again %.1f s after the last fault", time.Since(healed).Seconds())
		c.readDisks()
	}
	c.mu.Lock()
	causes := slices.Clone(c.causes)
	c.mu.Unlock()
	stints := c.recorder.Stints()
	for _, line := range slices.Concat(c.judge.boots(stints, causes, c.startedOn), c.claims.judge(stints, c.recorder.CounterAt)) {
		c.wrong("%s", line)
	}
	for _, h := range c.Hosts() {
		for _, word := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if lab.Contains(h.LogFile(), word) {
				c.wrong("%q is in the log of %s", word, h.Name)
			}
		}
	}
}

// readDisks looks at the guest's disk where it runs, as it is at one instant.
func (c *chaos) readDisks() {
	_, node, _ := c.recorder.Last()
	found, err := c.hosts[node].VerifyRunning(c.t.Context(), c.vm.UUID)
	if err != nil {
		c.wrong("%v", err)
		return
	}
	c.say("    %s", found)
}

// well says what is not as it should be when nothing is wrong around.
func (c *chaos) well(ctx context.Context, since time.Time) error {
	views := map[string]api.Status{}
	for _, h := range []*lab.Host{c.A, c.B} {
		bound, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, err := h.API().Status(bound)
		cancel()
		if err != nil {
			return fmt.Errorf("status of %s: %w", h.Name, err)
		}
		if len(status.VMs) != 1 {
			return fmt.Errorf("%s has %d guests", h.Name, len(status.VMs))
		}
		views[h.Name] = status
	}
	for name, status := range views {
		if status.Node.Maintenance {
			_, err := c.hosts[name].CLI(ctx, "node", "maintenance", "off")
			return fmt.Errorf("%s was in maintenance still: %v", name, err)
		}
	}
	a, b := views["a"].VMs[0], views["b"].VMs[0]
	if a.Owner != b.Owner || a.Epoch != b.Epoch {
		return fmt.Errorf("a says owner %s, epoch %d; b says owner %s, epoch %d", a.Owner, a.Epoch, b.Owner, b.Epoch)
	}
	owner, standby := c.A, c.B
	if a.Owner == "b" {
		owner, standby = c.B, c.A
	}
	v := views[owner.Name].VMs[0]
	if err := c.wish(ctx, owner, v); err != nil {
		return err
	}
	if err := errors.Join(lab.SyncedSince(since)(v), lab.Covered(v)); err != nil {
		return fmt.Errorf("on %s: %w", owner.Name, err)
	}
	if other := views[standby.Name].VMs[0]; other.State != v.State || other.Replica == nil || other.Replica.State != v.Replica.State {
		return fmt.Errorf("%s says %s, replica %+v; %s says %s, replica %+v", owner.Name, v.State, v.Replica, standby.Name, other.State, other.Replica)
	}
	for name, status := range views {
		if len(status.Node.Alarms) > 0 || !status.Protected {
			return fmt.Errorf("%s is not calm: %s, alarms %+v", name, status.Summary, status.Node.Alarms)
		}
	}
	if _, node, heard := c.recorder.Last(); node != owner.Name || heard.Before(since) || time.Since(heard) > time.Second {
		return fmt.Errorf("the guest was last heard from %s, %v ago; %s owns it", node, time.Since(heard), owner.Name)
	}
	return errors.Join(c.tidy(ctx, owner, true), c.tidy(ctx, standby, false))
}

// wish makes the guest run again where the faults included a user's command, or
// a full disk, that it stands still for. Where they did not it is an error.
func (c *chaos) wish(ctx context.Context, owner *lab.Host, v api.VM) error {
	c.mu.Lock()
	paused, stopped := c.batch["pause"] || c.batch["full-disk"], c.batch["stop"]
	c.mu.Unlock()
	verb := ""
	switch {
	case !v.Run && stopped:
		verb = "start"
	case (v.State == "paused" || v.State == "io-error") && paused:
		verb = "unpause"
	default:
		return nil
	}
	_, err := owner.CLI(ctx, "vm", verb, lab.GuestName)
	c.say("    it is %s: vm %s on %s: %v", v.State, verb, owner.Name, err)
	return err
}

// tidy says what a host has that it should not have, or lacks.
func (c *chaos) tidy(ctx context.Context, h *lab.Host, owner bool) error {
	list, err := h.Processes(ctx)
	if err != nil {
		return err
	}
	want := []string{"guard", "node", "qemu"} // the guest's, or its standby's
	if h.Waits(ctx, c.vm.UUID) == owner {
		return fmt.Errorf("the guest's QEMU on %s (owner: %v) waits to take it: %v", h.Name, owner, !owner)
	}
	var have []string
	for _, p := range list {
		switch {
		case p.Is("qemu"):
			have = append(have, "qemu")
		case len(p.Args) > 1:
			have = append(have, p.Args[1])
		default:
			have = append(have, p.Args[0])
		}
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		return fmt.Errorf("processes on %s: %v, want %v", h.Name, have, want)
	}
	taps, err := h.Taps(ctx)
	if err != nil {
		return err
	}
	if len(taps) != 1 {
		return fmt.Errorf("tap devices on %s: %v", h.Name, taps)
	}
	return c.sameFiles(h, owner)
}

// judge remembers up to where the guest's boots were judged.
type judge struct{ seen int }

// boots says which boots of the guest had no cause. The hosts take turns with
// the same token; a new token is a boot, which needs something that ended the
// guest: on the host that had it, or, if it is another one now, on that.
func (j *judge) boots(stints []lab.Stint, causes []cause, started func(node string, from, to time.Time) bool) (wrong []string) {
	for i := max(j.seen, 1); i < len(stints); i++ {
		before, now := stints[i-1], stints[i]
		if before.Token == now.Token {
			continue
		}
		found := slices.ContainsFunc(causes, func(k cause) bool {
			return (k.host == now.Node || k.host == "") && k.at.After(before.Last.Add(-time.Second)) && k.at.Before(now.First)
		}) || slices.ContainsFunc(causes, func(k cause) bool {
			// Ended where it was, booted there, taken over before its first word. What
			// has lost its power is taken over as it was, unless it was seen to boot.
			return k.host == before.Node && k.at.After(before.Last.Add(-time.Second)) && k.at.Before(now.First) &&
				(k.kind != "power-cut" || started(before.Node, k.at, now.First))
		})
		if !found {
			wrong = append(wrong, fmt.Sprintf("the guest booted anew on %s at %s without cause; it was on %s until %s",
				now.Node, now.First.Format("15:04:05.000"), before.Node, before.Last.Format("15:04:05.000")))
		}
	}
	j.seen = len(stints)
	return wrong
}

// startedOn says whether a host's agent has told that it booted the guest in a time.
func (c *chaos) startedOn(node string, from, to time.Time) bool {
	log, err := os.ReadFile(c.hosts[node].LogFile())
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, " event=guest-started ") {
			continue
		}
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if at, err := time.Parse(time.RFC3339, stamp); err == nil && at.After(from) && at.Before(to) {
			return true
		}
	}
	return false
}

// short takes what differs from run to run out of a file's name.
func (c *chaos) short(path string) string {
	return strings.ReplaceAll(strings.ReplaceAll(path, c.vm.UUID, "UUID"), c.vm.UUID[:8], "UUID8")
}
