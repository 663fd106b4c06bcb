package lease

import (
	"crypto/sha256"
	"fmt"

	"vmctl/ha"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// shortForms is the wire version from which a repeated message is one number.
const shortForms = 2

// Encoder gives the messages of one direction of one connection their form. A
// calm pair says the same every time: such a message travels as its sequence
// number. That is exact because a connection keeps order and loses nothing;
// what was said is remembered by its SHA-256, so that an end with many
// connections keeps 32 bytes for each. Not safe for concurrent use.
type Encoder struct {
	short bool
	last  [sha256.Size]byte // of the last heartbeat or acknowledgement; zero: nothing was sent yet
}

// NewEncoder is for a connection of that wire version.
func NewEncoder(version int) Encoder { return Encoder{short: version >= shortForms} }

// Frame gives a message's kind and body. What it returns must be the next frame
// sent; if it is not, the connection must end.
func (e *Encoder) Frame(m ha.Message) (wire.Kind, any, error) {
	kind, err := kindOf(m)
	if err != nil || !e.short {
		return kind, m, err
	}
	same := false
	switch numbered := m.(type) {
	case ha.Heartbeat:
		seq := numbered.Seq
		numbered.Seq = 0
		if same, err = e.repeats(kind, numbered); same {
			return kindSameHeartbeat, seq, nil
		}
	case ha.Ack:
		seq := numbered.Seq
		numbered.Seq = 0
		if same, err = e.repeats(kind, numbered); same {
			return kindSameAck, seq, nil
		}
	}
	return kind, m, err
}

// repeats says whether m is what was said last, and remembers it. A connection
// carries heartbeats one way and acknowledgements the other.
func (e *Encoder) repeats(kind wire.Kind, m any) (bool, error) {
	body, err := wire.Encode(m)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(append(body, byte(kind)))
	same := sum == e.last
	e.last = sum
	return same, nil
}

// Decoder reads the messages of one direction of one connection. Not safe for
// concurrent use.
type Decoder struct {
	from ha.NodeID
	kept string     // the last heartbeat, packed
	last ha.Message // the last acknowledgement, or heartbeat that is long; its slices nobody may change
}

// NewDecoder is for a connection whose other end proved to be from.
func NewDecoder(from ha.NodeID) Decoder { return Decoder{from: from} }

// Message reads a frame of the lease protocol and checks that its sender is the
// one the connection proved. The message shares memory with others of this
// connection: it must not be changed.
func (d *Decoder) Message(kind wire.Kind, body []byte) (ha.Message, error) {
	message, err := d.read(kind, body)
	if err != nil {
		return nil, err
	}
	if message.Sender() != d.from {
		return nil, fmt.Errorf("lease connection of %s carries a message of %s: %w", d.from, message.Sender(), peer.ErrStranger)
	}
	switch kind {
	case kindHeartbeat:
		message = d.keep(message.(ha.Heartbeat))
	case kindAck:
		d.last = message
	}
	return message, nil
}

// keep makes a heartbeat small. What it returns shares its names with what is
// kept, so that whoever keeps records of it does not keep the names again.
func (d *Decoder) keep(m ha.Heartbeat) ha.Message {
	if d.kept = pack(&m); d.kept != "" {
		d.last = nil
		return unpack(d.from, d.kept)
	}
	compact(&m)
	d.last = m
	return m
}

func (d *Decoder) read(kind wire.Kind, body []byte) (ha.Message, error) {
	switch kind {
	case kindHeartbeat:
		return decodeAs[ha.Heartbeat](body)
	case kindAck:
		return decodeAs[ha.Ack](body)
	case kindAsk:
		return decodeAs[ha.Ask](body)
	case kindAskReply:
		return decodeAs[ha.AskReply](body)
	case kindClaim:
		return decodeAs[ha.Claim](body)
	case kindClaimReply:
		return decodeAs[ha.ClaimReply](body)
	case kindSameHeartbeat, kindSameAck:
		var seq uint64
		if err := wire.Decode(body, &seq); err != nil {
			return nil, err
		}
		return d.again(kind, seq)
	}
	return nil, fmt.Errorf("lease connection: frame of kind %d: %w", kind, wire.ErrMalformed)
}

// again is the last message under another sequence number.
func (d *Decoder) again(kind wire.Kind, seq uint64) (ha.Message, error) {
	if kind == kindSameHeartbeat && d.kept != "" {
		m := unpack(d.from, d.kept)
		m.Seq = seq
		return m, nil
	}
	switch m := d.last.(type) {
	case ha.Heartbeat:
		if m.Seq = seq; kind == kindSameHeartbeat {
			return m, nil
		}
	case ha.Ack:
		if m.Seq = seq; kind == kindSameAck {
			return m, nil
		}
	}
	return nil, fmt.Errorf("lease connection: the first message says it repeats one: %w", wire.ErrMalformed)
}

func decodeAs[T ha.Message](body []byte) (ha.Message, error) {
	var m T
	err := wire.Decode(body, &m)
	return m, err
}
