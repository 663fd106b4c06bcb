package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// call sends one request and waits for its answer. The guard answers at once, so
// a ctx that ends first means that it is stopped or the host is stuck.
func (c *Client) call(ctx context.Context, v verb, args ...uint64) ([]string, error) {
	words, err := c.exchange(ctx, v, args)
	if err != nil {
		return nil, fmt.Errorf("%s guest %s: %w", verbs[v].word, c.launch.Guest.Name, err)
	}
	return words, nil
}

func (c *Client) exchange(ctx context.Context, v verb, args []uint64) ([]string, error) {
	answer := make(chan reply, 1)
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return nil, c.lost()
	}
	c.seq++
	r := request{tag: c.seq, verb: v}
	copy(r.args[:], args)
	c.pending[r.tag] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, r.tag)
		c.mu.Unlock()
	}()
	if err := c.send(ctx, appendRequest(nil, r)); err != nil {
		if d, ok := ctx.Deadline(); ok && errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(d) {
			<-ctx.Done() // its timer is a moment behind the socket's; the connection is as it was
			return nil, ctx.Err()
		}
		return nil, errors.Join(c.lost(), err)
	}
	select {
	case r, ok := <-answer:
		if !ok {
			return nil, c.lost()
		}
		return r.words, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Client) send(ctx context.Context, packet []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	until := time.Now().Add(writeBound)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := c.conn.SetWriteDeadline(until); err != nil {
		return err
	}
	_, err := c.conn.Write(packet)
	return err
}

// lost says what the end of the connection means: with QEMU gone it is ErrGone.
func (c *Client) lost() error {
	if r, ok := c.Exit(); ok {
		return &GoneError{Record: &r, Detail: "the guard has ended"}
	}
	select {
	case <-c.done:
		return &GoneError{Detail: "the guard was killed"}
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	return ErrDetached
}

// Status asks the guard for its state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	words, err := c.call(ctx, verbStatus)
	if err != nil {
		return Status{}, err
	}
	return decodeStatus(words)
}

// Renew extends the lease of epoch to deadline (CLOCK_BOOTTIME ns, or Forever). The
// deadline in force is never moved to an earlier time, unless it was Forever. A
// frozen guest is thawed. ErrStaleEpoch, ErrUnknownEpoch, ErrPastDeadline, ErrGone;
// ErrUnclaimed for a standby.
func (c *Client) Renew(ctx context.Context, epoch uint64, deadline int64) error {
	_, err := c.call(ctx, verbRenew, epoch, uint64(max(deadline, 0)))
	return err
}

// Claim makes a standby's QEMU (Launch.Standby) the guest of a new owner, once; the
// epoch must not be lower than the one it was launched with. From then on it is
// subject to this epoch and deadline. ErrNotStandby, and as Renew.
func (c *Client) Claim(ctx context.Context, epoch uint64, deadline int64) error {
	_, err := c.call(ctx, verbClaim, epoch, uint64(max(deadline, 0)))
	return err
}

// SetIsolation changes what happens at the end of the lease. A guard of an older
// vmctl does not know it: ErrMalformed.
func (c *Client) SetIsolation(ctx context.Context, i Isolation) error {
	n, ok := i.number()
	if !ok {
		return fmt.Errorf("%w: isolation %q", ErrMalformed, i)
	}
	_, err := c.call(ctx, verbIsolation, n)
	return err
}

// Revoke kills QEMU because epoch is over, and waits until it is reaped: from then
// on no write of it can land. ErrStaleEpoch, ErrUnknownEpoch: not killed.
func (c *Client) Revoke(ctx context.Context, epoch uint64) error {
	return c.finish(ctx, verbRevoke, epoch)
}

// Kill kills QEMU whatever its epoch, and waits until it is reaped.
func (c *Client) Kill(ctx context.Context) error { return c.finish(ctx, verbKill) }

// Terminate asks QEMU to end (SIGTERM), kills it after bound, and waits until it is
// reaped. A frozen QEMU is killed at once.
func (c *Client) Terminate(ctx context.Context, bound time.Duration) error {
	return c.finish(ctx, verbTerminate, uint64(max(bound, 0)))
}

func (c *Client) finish(ctx context.Context, v verb, args ...uint64) error {
	_, err := c.call(ctx, v, args...)
	if err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, ErrDetached) {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-c.closing:
		return ErrDetached
	case <-c.hangup:
	case <-ctx.Done():
		return fmt.Errorf("%s guest %s: QEMU (pid %d) is not gone yet: %w", verbs[v].word, c.launch.Guest.Name, c.pid, ctx.Err())
	}
	// Without a guard QEMU ends too, unless it was this client that was dropped.
	select {
	case <-c.done:
		return nil
	case <-time.After(newsBound):
		return fmt.Errorf("%s guest %s: %w", verbs[v].word, c.launch.Guest.Name, ErrDetached)
	case <-ctx.Done():
		return fmt.Errorf("%s guest %s: %w", verbs[v].word, c.launch.Guest.Name, ctx.Err())
	}
}
