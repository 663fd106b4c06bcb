package caller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"

	"vmctl/node/e2e/lab"
)

const (
	// Every is the time between two calls; an answer's time is that exact.
	Every = 20 * time.Millisecond

	echoPort = "7" // of the test guest
)

// Answer is one answer of the guest.
type Answer struct {
	At    time.Time
	Proof lab.Proof
}

// Caller calls one guest.
type Caller struct {
	conn  net.Conn
	tasks sync.WaitGroup
	stop  context.CancelFunc

	mu   sync.Mutex
	last Answer
	wait *waiting // who waits for an answer, if anyone does
}

type waiting struct {
	after time.Time
	found chan Answer // capacity 1
}

// Start begins to call the guest at an address from a network namespace.
func Start(ctx context.Context, namespace, guest string) (*Caller, error) {
	c := &Caller{}
	err := lab.InNamespace(namespace, func() (err error) {
		c.conn, err = net.Dial("udp", net.JoinHostPort(guest, echoPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("call the guest at %s: %w", guest, err)
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.tasks.Go(func() { c.call(ctx) })
	c.tasks.Go(c.listen)
	return c, nil
}

// Stop ends the calls.
func (c *Caller) Stop() {
	c.stop()
	_ = c.conn.Close()
	c.tasks.Wait()
}

func (c *Caller) call(ctx context.Context) {
	ticker := time.NewTicker(Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_, _ = c.conn.Write([]byte("?")) // the guest may be away
		}
	}
}

func (c *Caller) listen() {
	packet := make([]byte, 4096)
	for {
		n, err := c.conn.Read(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		answer := Answer{At: time.Now()}
		if err == nil && json.Unmarshal(packet[:n], &answer.Proof) == nil {
			c.note(answer)
		}
	}
}

func (c *Caller) note(answer Answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = answer
	if c.wait != nil && answer.At.After(c.wait.after) {
		c.wait.found <- answer
		c.wait = nil
	}
}

// Last is the newest answer.
func (c *Caller) Last() Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// After waits for the first answer that comes from now on.
func (c *Caller) After(ctx context.Context, bound time.Duration) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	w := &waiting{after: time.Now(), found: make(chan Answer, 1)}
	c.mu.Lock()
	c.wait = w
	c.mu.Unlock()
	select {
	case answer := <-w.found:
		return answer, nil
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("wait %s for the guest's answer: %w", bound, ctx.Err())
	}
}

// Pin fixes the guest's hardware address in a namespace, as it is known there
// now.
func Pin(ctx context.Context, namespace, device, guest string) error {
	out, err := exec.CommandContext(ctx, "ip", "-n", namespace, "neigh", "show", guest, "dev", device).Output()
	if err != nil {
		return fmt.Errorf("look up the guest's hardware address: %w", err)
	}
	words := strings.Fields(string(out))
	for i, word := range words {
		if word == "lladdr" && i+1 < len(words) {
			return exec.CommandContext(ctx, "ip", "-n", namespace, "neigh", "replace", guest, "lladdr", words[i+1], "dev", device, "nud", "permanent").Run()
		}
	}
	return fmt.Errorf("the hardware address of %s is not known in %s: %q", guest, namespace, out)
}
