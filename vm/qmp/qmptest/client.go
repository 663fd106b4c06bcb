package qmptest

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vmctl/vm/qmp"
)

// queueLength is how many in-band commands QEMU reads ahead before it stops
// reading altogether, out-of-band commands included.
const queueLength = 8

// client is the connection being served.
type client struct {
	server *Server
	conn   *net.UnixConn
	gone   chan struct{} // closed when the client has left
	queue  chan *Call

	writing sync.Mutex

	mu    sync.Mutex
	ready bool // qmp_capabilities was done
	file  *os.File
}

func newClient(s *Server, conn *net.UnixConn) *client {
	return &client{server: s, conn: conn, gone: make(chan struct{}), queue: make(chan *Call, queueLength)}
}

// serve runs until the client has left and no handler runs any more.
func (c *client) serve() {
	var handlers sync.WaitGroup
	if c.server.Greeting != "" {
		c.write([]byte(c.server.Greeting + "\r\n"))
	}
	handlers.Go(func() {
		for call := range c.queue {
			c.answer(call)
		}
	})
	c.receive(&handlers)
	close(c.gone)
	close(c.queue)
	handlers.Wait()
	c.keep(nil)
}

// receive reads commands until the client has left or the server is killed.
func (c *client) receive(handlers *sync.WaitGroup) {
	decoder := json.NewDecoder(c)
	for {
		call := &Call{client: c}
		if err := decoder.Decode(call); err != nil {
			return
		}
		c.server.thawed()
		if call.OOB {
			handlers.Go(func() { c.answer(call) })
			continue
		}
		select {
		case c.queue <- call:
		case <-c.server.done:
			return
		}
	}
}

// Read receives bytes, and files beside them.
func (c *client) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*8))
	c.server.thawed()
	n, oobn, _, _, err := c.conn.ReadMsgUnix(p, oob)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			c.keep(os.NewFile(uintptr(fd), "passed"))
		}
	}
	return n, nil
}

// keep replaces the passed file that no command has taken yet.
func (c *client) keep(f *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		_ = c.file.Close()
	}
	c.file = f
}

func (c *client) write(raw []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = c.conn.Write(raw)
}

func (c *client) answer(call *Call) {
	value, err := c.handle(call)
	c.server.gate.RLock()
	defer c.server.gate.RUnlock()
	if errors.Is(err, ErrNoReply) {
		return
	}
	reply := map[string]any{}
	if len(call.ID) > 0 {
		reply["id"] = call.ID
	}
	var refused *qmp.Error
	switch {
	case errors.As(err, &refused):
		reply["error"] = map[string]string{"class": refused.Class, "desc": refused.Description}
	case err != nil:
		reply["error"] = map[string]string{"class": qmp.ClassGeneric, "desc": err.Error()}
	case value == nil:
		reply["return"] = struct{}{}
	default:
		reply["return"] = value
	}
	c.write(mustEncode(reply))
}

func (c *client) handle(call *Call) (any, error) {
	c.mu.Lock()
	ready := c.ready
	if call.Command == "qmp_capabilities" {
		c.ready = true
	}
	c.mu.Unlock()
	switch {
	case !ready && call.Command == "qmp_capabilities":
		return nil, nil
	case !ready:
		return nil, notFound("Expecting capabilities negotiation with 'qmp_capabilities'")
	}
	c.server.mu.Lock()
	c.server.calls = append(c.server.calls, call)
	handler := c.server.handlers[call.Command]
	c.server.mu.Unlock()
	if handler == nil {
		return nil, notFound("The command " + call.Command + " has not been found")
	}
	return handler(call)
}

func notFound(text string) error {
	return &qmp.Error{Class: qmp.ClassCommandNotFound, Description: text}
}
