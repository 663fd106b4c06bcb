package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// maxMessage bounds one message from QEMU, in bytes. The largest known, the
// schema, has 250 KB. A guest that broke out into QEMU must not be able to eat
// the agent's memory.
const maxMessage = 64 << 20

// message is anything QEMU sends: greeting, reply or event.
type message struct {
	QMP       *greeting       `json:"QMP"`
	ID        json.RawMessage `json:"id"`
	Return    json.RawMessage `json:"return"`
	Error     *failure        `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp timestamp       `json:"timestamp"`
}

type greeting struct {
	Version      goqemu.Version    `json:"version"`
	Capabilities []json.RawMessage `json:"capabilities"`
}

type failure struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

type timestamp struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

func (t timestamp) time() time.Time { return time.Unix(t.Seconds, t.Microseconds*1000) }

// id is the string id of a reply. Ids of other types are no ids of ours.
func (m *message) id() string {
	var id string
	if json.Unmarshal(m.ID, &id) != nil {
		return ""
	}
	return id
}

func (m *message) isReply() bool { return m.Return != nil || m.Error != nil }

// offers tells whether the greeting names the capability. They are strings
// today; others are to be ignored.
func (g *greeting) offers(capability string) bool {
	for _, raw := range g.Capabilities {
		var name string
		if json.Unmarshal(raw, &name) == nil && name == capability {
			return true
		}
	}
	return false
}

// decoder cuts QEMU's bytes into messages.
type decoder struct {
	json *json.Decoder
	in   *limitedReader
	max  int // bytes of one message
}

func newDecoder(r io.Reader, max int) *decoder {
	in := &limitedReader{r: r}
	return &decoder{json: json.NewDecoder(in), in: in, max: max}
}

// next returns the next message. An error of the connection comes as it is;
// everything else is ErrProtocol, and there is no reading on after it.
func (d *decoder) next() (message, error) {
	d.in.left = d.max
	var m message
	err := d.json.Decode(&m)
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &wrongType) || errors.Is(err, errTooLong) {
		return message{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return m, err
}

var errTooLong = errors.New("a message is too long")

// limitedReader fails once more than left bytes were read since left was set.
type limitedReader struct {
	r    io.Reader
	left int
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.r.Read(p)
	l.left -= n
	return n, err
}
