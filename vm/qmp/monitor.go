package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// Monitor is a Client as go-qemu knows monitors, for its packages (qmp/raw).
type Monitor struct {
	client  *Client
	timeout time.Duration
}

var _ goqemu.Monitor = (*Monitor)(nil)

// Monitor returns a view of the connection for go-qemu's packages. Run has no
// context there, so timeout bounds each command.
func (c *Client) Monitor(timeout time.Duration) *Monitor {
	return &Monitor{client: c, timeout: timeout}
}

// Connect only checks: Dial has connected.
func (m *Monitor) Connect() error { return m.client.Err() }

// Disconnect closes the Client.
func (m *Monitor) Disconnect() error { return m.client.Close() }

// Run runs a command given as JSON ("execute" or "exec-oob", and "arguments")
// and returns {"return": ...}. The result is the caller's.
func (m *Monitor) Run(command []byte) ([]byte, error) {
	var request struct {
		Execute string          `json:"execute"`
		OOB     string          `json:"exec-oob"`
		Args    json.RawMessage `json:"arguments"`
	}
	if err := json.Unmarshal(command, &request); err != nil {
		return nil, fmt.Errorf("qmp: %w: the command is not JSON: %w", ErrNotSent, err)
	}
	var args any
	if request.Args != nil {
		args = request.Args
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.timeout)
	defer cancel()

	var reply struct {
		Return json.RawMessage `json:"return"`
	}
	var err error
	switch {
	case request.Execute != "" && request.OOB == "":
		err = m.client.Execute(ctx, request.Execute, args, &reply.Return)
	case request.OOB != "" && request.Execute == "":
		err = m.client.ExecuteOOB(ctx, request.OOB, args, &reply.Return)
	default:
		err = fmt.Errorf("qmp: %w: the command needs one of execute and exec-oob", ErrNotSent)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(reply)
}

// Events subscribes until ctx ends. Numbers in the data are json.Number.
func (m *Monitor) Events(ctx context.Context) (<-chan goqemu.Event, error) {
	events, cancel := m.client.Events()
	out := make(chan goqemu.Event)
	forward := func() {
		defer close(out)
		defer cancel()
		for {
			select {
			case e, open := <-events:
				if !open {
					return
				}
				select {
				case out <- translate(e):
				case <-ctx.Done():
					return
				case <-m.client.quit:
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
	if err := m.client.spawn(forward); err != nil {
		cancel()
		return nil, err
	}
	return out, nil
}

func translate(e Event) goqemu.Event {
	out := goqemu.Event{Event: e.Name}
	out.Timestamp.Seconds = e.Time.Unix()
	out.Timestamp.Microseconds = int64(e.Time.Nanosecond() / 1000)
	if e.Name == EventsDropped {
		out.Data = map[string]any{"count": e.Dropped}
		return out
	}
	exact := json.NewDecoder(bytes.NewReader(e.Data))
	exact.UseNumber()
	_ = exact.Decode(&out.Data) // data is an object by the protocol, or missing
	return out
}
