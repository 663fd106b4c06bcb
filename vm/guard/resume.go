package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	qmpStep   = 2 * time.Second        // for each exchange that may be given up
	qmpRetry  = 500 * time.Millisecond // after a failed try
	qmpSettle = 250 * time.Millisecond // a `stop` of a dead agent may still be in its socket
)

var errNotYet = errors.New("QEMU is in a passing state")

// resumeGuest lets a guest continue that was stopped for a checkpoint, and looks
// again after a moment: the agent may have died with its `stop` still unread in
// QEMU's socket. It tries until it succeeds or ctx ends. When it returns, no
// `cont` of it can be on its way any more.
func resumeGuest(ctx context.Context, socket string) error {
	for look := 0; look < 2; {
		err := resumeOnce(ctx, socket)
		if ctx.Err() != nil {
			return nil // QEMU is gone or the guard ends
		}
		var refused *refusedError
		if errors.As(err, &refused) {
			return err
		}
		pause := qmpRetry
		if err == nil {
			look++
			pause = qmpSettle
		}
		if look == 2 {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// refusedError is an error answer of QEMU.
type refusedError struct{ command, class, desc string }

func (e *refusedError) Error() string {
	return fmt.Sprintf("QEMU refused %s: %s (%s)", e.command, e.desc, e.class)
}

// resumeOnce continues the guest if it is paused the way a checkpoint leaves it. A
// guest that stopped for a reason of its own (I/O error, panic) or has not started
// yet is left alone.
func resumeOnce(ctx context.Context, socket string) error {
	m, err := dialMonitor(ctx, socket)
	if err != nil {
		return err
	}
	defer m.close()
	var state struct{ Status string }
	if err := m.execute("query-status", qmpStep, &state); err != nil {
		return err
	}
	switch state.Status {
	case "paused", "postmigrate":
		// No deadline: once sent it may be carried out at any later time, and
		// until it is no new pause must begin.
		return m.execute("cont", 0, nil)
	case "finish-migrate", "save-vm", "restore-vm":
		return fmt.Errorf("%w: %s", errNotYet, state.Status)
	}
	return nil
}

// monitor is the little of QMP a guard needs.
type monitor struct {
	conn    net.Conn
	decoder *json.Decoder
	release func() bool
}

func dialMonitor(ctx context.Context, socket string) (*monitor, error) {
	d := net.Dialer{Timeout: qmpStep}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to QEMU's monitor: %w", err)
	}
	m := &monitor{conn: conn, decoder: json.NewDecoder(conn)}
	m.release = context.AfterFunc(ctx, func() { _ = conn.Close() })
	var greeting struct{ QMP json.RawMessage }
	_ = conn.SetDeadline(time.Now().Add(qmpStep))
	if err := m.decoder.Decode(&greeting); err != nil {
		m.close()
		return nil, fmt.Errorf("wait for QEMU's greeting: %w", err)
	}
	if err := m.execute("qmp_capabilities", qmpStep, nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) close() {
	m.release()
	_ = m.conn.Close()
}

// execute sends a command without arguments and skips events until its answer.
// A bound of 0 waits for as long as the connection lives.
func (m *monitor) execute(command string, bound time.Duration, reply any) error {
	var deadline time.Time
	if bound > 0 {
		deadline = time.Now().Add(bound)
	}
	_ = m.conn.SetDeadline(deadline)
	if _, err := fmt.Fprintf(m.conn, "{\"execute\":%q}\n", command); err != nil {
		return fmt.Errorf("send %s to QEMU: %w", command, err)
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Class, Desc string }
		}
		if err := m.decoder.Decode(&answer); err != nil {
			return fmt.Errorf("wait for QEMU's answer to %s: %w", command, err)
		}
		if answer.Error != nil {
			return &refusedError{command, answer.Error.Class, answer.Error.Desc}
		}
		if answer.Return == nil {
			continue // an event
		}
		if reply == nil {
			return nil
		}
		return json.Unmarshal(answer.Return, reply)
	}
}
