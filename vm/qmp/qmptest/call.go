package qmptest

import (
	"encoding/json"
	"os"
)

// Call is a command as it came.
type Call struct {
	Command string
	Args    json.RawMessage // nil without arguments
	ID      json.RawMessage
	OOB     bool

	client *client
}

// UnmarshalJSON reads a command.
func (c *Call) UnmarshalJSON(data []byte) error {
	var in struct {
		Execute string          `json:"execute"`
		OOB     string          `json:"exec-oob"`
		Args    json.RawMessage `json:"arguments"`
		ID      json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	c.Command, c.Args, c.ID = in.Execute, in.Args, in.ID
	if in.OOB != "" {
		c.Command, c.OOB = in.OOB, true
	}
	return nil
}

// Decode reads the arguments into v; an argument that v does not have is ignored.
func (c *Call) Decode(v any) error {
	if c.Args == nil {
		return nil
	}
	return json.Unmarshal(c.Args, v)
}

// TakeFile is the file passed last, nil without one. It is the handler's to close.
func (c *Call) TakeFile() *os.File {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	f := c.client.file
	c.client.file = nil
	return f
}

// Done is closed when the client has left or the server was killed.
func (c *Call) Done() <-chan struct{} { return c.client.gone }

// Emit sends an event before the answer.
func (c *Call) Emit(event string, data any) { c.client.server.Emit(event, data) }

// Kill ends the server from within a handler; nothing is sent after it.
func (c *Call) Kill() { c.client.server.kill() }
