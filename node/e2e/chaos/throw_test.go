package chaos

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"vmctl/node/e2e/lab"
)

// cause is something that ended the guest on a host, so that it may boot anew.
type cause struct {
	at   time.Time
	host string // where it can have ended the guest; empty: wherever that was
	kind string
}

// throw brings a batch of faults about and waits until each has been ended.
func (c *chaos) throw(n int, faults []fault) {
	c.mu.Lock()
	clear(c.batch)
	c.mu.Unlock()
	_, node, _ := c.recorder.Last()
	c.say("batch %d, guest on %s", n, node)
	var tasks sync.WaitGroup
	for _, f := range faults {
		time.Sleep(f.gap)
		f.host = c.hostOf(f.host)
		tasks.Go(func() {
			hit, err := c.inject(c.t.Context(), f)
			if err != nil {
				c.wrong("%v could not be brought about: %v", f, err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if hit {
				c.done[f.kind]++
				c.batch[f.kind] = true
			}
		})
	}
	tasks.Wait()
}

// hostOf says which host has a role now, as the network sees it.
func (c *chaos) hostOf(role string) string {
	_, node, _ := c.recorder.Last()
	switch {
	case role == "o":
		return node
	case role == "s":
		return map[string]string{"a": "b", "b": "a"}[node]
	}
	return role
}

// ended notes a cause for a boot.
func (c *chaos) ended(f fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := cause{at: time.Now(), host: f.host, kind: f.kind}
	if k.kind == "stop" {
		k.host = "" // whichever node is asked passes it on to the owner
	}
	c.causes = append(c.causes, k)
}

// inject brings one fault about and ends it. It says whether there was anything
// to hit.
func (c *chaos) inject(ctx context.Context, f fault) (hit bool, err error) {
	c.say("  %v", f)
	h := c.hosts[f.host]
	switch f.kind {
	case "kill-agent", "kill-witness":
		return h.end(syscall.SIGKILL, f.lasts), nil
	case "restart-agent":
		return h.end(syscall.SIGTERM, f.lasts), nil
	case "stop-agent":
		return c.suspend(ctx, h, "node", f), nil
	case "stop-witness":
		return c.suspend(ctx, h, "witness", f), nil
	case "stop-guard":
		return c.suspend(ctx, h, "guard", f), nil
	case "stop-qemu":
		return c.suspend(ctx, h, "qemu", f), nil
	case "kill-guard", "kill-qemu":
		c.ended(f)
		return h.signal(ctx, f.kind[len("kill-"):], syscall.SIGKILL) != 0, nil
	case "power-cut":
		c.ended(f)
		hit, err = h.cut(ctx)
		time.Sleep(f.lasts)
		if err == nil {
			err = h.back(ctx)
		}
		return hit, err
	case "pause", "stop":
		return c.operate(ctx, h, f), nil
	case "maintenance":
		return c.maintain(ctx, h, f), nil
	}
	return c.environment(ctx, h, f)
}

// environment is what goes wrong around the processes.
func (c *chaos) environment(ctx context.Context, h *power, f fault) (bool, error) {
	peer := map[string]*lab.Host{"a": c.B, "b": c.A}[f.host]
	begin, end := map[string]func() error{
		"cable-cut":         func() error { return h.Unplug(ctx) },
		"drop-from-peer":    func() error { return h.Drop(ctx, peer) },
		"drop-from-witness": func() error { return h.Drop(ctx, c.W) },
		"slow-link":         func() error { return h.Slow(ctx, 4_000_000) },
		"full-disk":         h.FillDisk,
		"full-ram":          h.FillRAM,
	}[f.kind], map[string]func() error{
		"cable-cut": func() error { return c.plug(ctx, h) },
		"slow-link": func() error { return h.Fast(ctx) },
		"full-disk": h.Free,
		"full-ram":  h.Free,
	}[f.kind]
	if f.kind == "full-ram" {
		c.ended(f) // a guest that needs a page of memory then is killed by the kernel
		defer c.ended(f)
	}
	if begin == nil {
		return false, fmt.Errorf("no way to bring about %q", f.kind)
	}
	if err := begin(); err != nil {
		return false, err
	}
	time.Sleep(f.lasts)
	if end == nil {
		return true, nil // heal lets packets through again
	}
	return true, end()
}

// plug puts a cable back unless the host has no power.
func (c *chaos) plug(ctx context.Context, h *power) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return nil
	}
	return h.Plug(ctx)
}

// suspend stops a process and lets it go on.
func (c *chaos) suspend(ctx context.Context, h *power, what string, f fault) bool {
	pid := h.signal(ctx, what, syscall.SIGSTOP)
	if pid == 0 {
		return false
	}
	time.Sleep(f.lasts)
	if what == "qemu" && h.Frozen(ctx, c.vm.UUID) {
		// A QEMU that hung would stay stopped now: its guard has a stop of its own on it,
		// which the end of this one would undo for a moment, on a host that may not run it.
		c.say("    the guest is frozen: left to its guard")
		return true
	}
	_ = syscall.Kill(pid, syscall.SIGCONT) // it may be gone
	return true
}

// operate is a user at work, who is told what cannot be done.
func (c *chaos) operate(ctx context.Context, h *power, f fault) bool {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	verbs, args := []string{"pause", "unpause"}, []string{}
	if f.kind == "stop" {
		c.ended(f)
		verbs, args = []string{"stop", "start"}, []string{"--timeout", "5s"}
	}
	_, err := h.CLI(ctx, append([]string{"vm", verbs[0], lab.GuestName}, args...)...)
	if f.kind == "stop" {
		c.ended(f) // it may have gone on until now
	}
	if err != nil {
		c.say("    refused: %v", err)
	}
	c.mu.Lock()
	c.batch[f.kind] = true // a command that failed may have been carried out
	c.mu.Unlock()
	time.Sleep(f.lasts)
	if _, err := h.CLI(ctx, "vm", verbs[1], lab.GuestName); err != nil {
		c.say("    refused: %v", err)
	}
	return err == nil
}

// maintain takes a host out of service for a while: its guests are handed over.
func (c *chaos) maintain(ctx context.Context, h *power, f fault) (hit bool) {
	for _, word := range []string{"on", "off"} {
		bound, cancel := context.WithTimeout(ctx, 30*time.Second)
		_, err := h.CLI(bound, "node", "maintenance", word)
		cancel()
		if err != nil {
			c.say("    refused: %v", err)
		}
		hit = hit || err == nil
		if word == "on" {
			time.Sleep(f.lasts)
		}
	}
	return hit
}
