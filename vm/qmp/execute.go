package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// Executor runs commands. Client is one.
type Executor interface {
	Execute(ctx context.Context, command string, args, reply any) error
}

// FileExecutor also passes files.
type FileExecutor interface {
	Executor
	ExecuteWithFile(ctx context.Context, command string, args, reply any, f *os.File) error
}

// OOBExecutor runs commands past those QEMU is busy with.
type OOBExecutor interface {
	ExecuteOOB(ctx context.Context, command string, args, reply any) error
}

var (
	_ FileExecutor = (*Client)(nil)
	_ OOBExecutor  = (*Client)(nil)
)

// Execute runs a command and decodes what it returns into reply. args is
// anything that encodes to a JSON object, or nil; reply is a pointer, or nil.
// Numbers decoded into an any are json.Number, so they keep every digit.
//
// One command runs at a time; others wait their turn, each no longer than its
// ctx. Package doc lists the errors.
func (c *Client) Execute(ctx context.Context, command string, args, reply any) error {
	return c.run(ctx, order{command: command, args: args}, reply)
}

// ExecuteOOB runs a command that QEMU can do beside a hanging one (the schema
// says which: yank, migrate-recover, ...). It waits for no other command.
func (c *Client) ExecuteOOB(ctx context.Context, command string, args, reply any) error {
	if !c.oob {
		return fmt.Errorf("qmp: %s: %w: %w", command, ErrNotSent, ErrNoOOB)
	}
	return c.run(ctx, order{command: command, args: args, oob: true}, reply)
}

// ExecuteWithFile is Execute with a file for QEMU (add-fd, getfd). QEMU gets its
// own descriptor of the same open file: offset and flags are shared. f stays the
// caller's and may be closed as soon as this returns.
func (c *Client) ExecuteWithFile(ctx context.Context, command string, args, reply any, f *os.File) error {
	own, err := duplicate(f)
	if err != nil {
		return fmt.Errorf("qmp: %s: %w: %w", command, ErrNotSent, err)
	}
	return c.run(ctx, order{command: command, args: args, file: own}, reply)
}

// order is a command as the caller gave it. run closes the file.
type order struct {
	command string
	args    any
	oob     bool
	file    *os.File
}

func (c *Client) run(ctx context.Context, o order, reply any) error {
	m, err := c.roundTrip(ctx, o)
	if err != nil {
		return err
	}
	if m.Error != nil {
		return &Error{o.command, m.Error.Class, m.Error.Desc}
	}
	if err := decodeReply(m.Return, reply); err != nil {
		return fmt.Errorf("qmp: %s: QEMU's answer is not of the expected form: %w", o.command, err)
	}
	return nil
}

func decodeReply(data json.RawMessage, reply any) error {
	if reply == nil {
		return nil
	}
	exact := json.NewDecoder(bytes.NewReader(data))
	exact.UseNumber()
	return exact.Decode(reply)
}

// roundTrip sends a command and waits for its answer, which may be an error.
func (c *Client) roundTrip(ctx context.Context, o order) (message, error) {
	handed := false
	defer func() {
		if !handed && o.file != nil {
			_ = o.file.Close()
		}
	}()
	k := &call{command: o.command, inBand: !o.oob, reply: make(chan message, 1)}
	if err := c.register(k); err != nil {
		return message{}, err
	}
	body, err := encode(k.id, o)
	if err != nil {
		c.forget(k)
		return message{}, fmt.Errorf("qmp: %s: %w: arguments: %w", o.command, ErrNotSent, err)
	}
	if err := c.handOver(ctx, k, packet{body, o.file}); err != nil {
		c.forget(k)
		return message{}, err
	}
	handed = true
	return c.await(ctx, k)
}

// handOver takes the in-band turn and gives the command to the writer.
func (c *Client) handOver(ctx context.Context, k *call, p packet) error {
	if ctx.Err() != nil {
		return gaveUp(ctx, k.command, false)
	}
	if k.inBand {
		select {
		case c.slot <- struct{}{}:
		case <-ctx.Done():
			return gaveUp(ctx, k.command, false)
		case <-c.done:
			return c.unsent(k)
		}
	}
	select {
	case c.out <- p:
		return nil
	case <-ctx.Done():
		if k.inBand {
			<-c.slot
		}
		return gaveUp(ctx, k.command, false)
	case <-c.done:
		return c.unsent(k)
	}
}

func (c *Client) await(ctx context.Context, k *call) (message, error) {
	select {
	case m := <-k.reply:
		return m, nil
	case <-ctx.Done():
	case <-c.done:
	}
	// A reply that is there wins: "quit" answers and then hangs up.
	c.mu.Lock()
	k.left = true
	c.mu.Unlock()
	select {
	case m := <-k.reply:
		return m, nil
	default:
	}
	if err := c.Err(); err != nil {
		return message{}, fmt.Errorf("qmp: %s: %w", k.command, err)
	}
	return message{}, gaveUp(ctx, k.command, true)
}

func (c *Client) unsent(k *call) error {
	return fmt.Errorf("qmp: %s: %w: %w", k.command, ErrNotSent, c.Err())
}

func (c *Client) register(k *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return fmt.Errorf("qmp: %s: %w: %w", k.command, ErrNotSent, c.err)
	}
	c.lastID++
	k.id = c.prefix + strconv.FormatUint(c.lastID, 10)
	c.pending[k.id] = k
	return nil
}

func (c *Client) forget(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, k.id)
}

func encode(id string, o order) ([]byte, error) {
	var request any = struct {
		goqemu.Command
		ID string `json:"id"`
	}{goqemu.Command{Execute: o.command, Args: o.args}, id}
	if o.oob {
		request = struct {
			Execute string `json:"exec-oob"`
			Args    any    `json:"arguments,omitempty"`
			ID      string `json:"id"`
		}{o.command, o.args, id}
	}
	body, err := json.Marshal(request)
	return append(body, '\n'), err
}
