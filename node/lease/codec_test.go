package lease

import (
	"errors"
	"reflect"
	"testing"

	"vmctl/ha"
	"vmctl/node/wire"
)

// travel encodes a message as it goes over a connection and decodes it again.
func travel(t *testing.T, out *Encoder, in *Decoder, m ha.Message) (wire.Kind, ha.Message) {
	t.Helper()
	kind, body, err := out.Frame(m)
	if err != nil {
		t.Fatal(err)
	}
	data, err := wire.Encode(body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := in.Message(kind, data)
	if err != nil {
		t.Fatal(err)
	}
	return kind, got
}

func TestRepeatedMessagesAreShort(t *testing.T) {
	beat := everyMessage[0].(ha.Heartbeat)
	ack := everyMessage[3].(ha.Ack)
	numbered := func(m ha.Message, seq uint64) ha.Message {
		switch m := m.(type) {
		case ha.Heartbeat:
			m.Seq = seq
			return m
		case ha.Ack:
			m.Seq = seq
			return m
		}
		return m
	}
	newer := beat
	newer.Renewals = []ha.Record{beat.Renewals[0]}
	newer.Renewals[0].Outdated = true
	booted := beat
	booted.Boot++
	refused := ack
	refused.Grants = []ha.Grant{ack.Grants[0]}
	refused.Grants[0].OK = false
	for _, test := range []struct {
		name    string
		version int
		say     []ha.Message
		kinds   []wire.Kind
	}{
		{"calm", 2, []ha.Message{numbered(beat, 1), numbered(beat, 2), numbered(beat, 9)}, []wire.Kind{kindHeartbeat, kindSameHeartbeat, kindSameHeartbeat}},
		{"acknowledged", 2, []ha.Message{numbered(ack, 1), numbered(ack, 2)}, []wire.Kind{kindAck, kindSameAck}},
		{"a changed record", 2, []ha.Message{beat, newer, beat}, []wire.Kind{kindHeartbeat, kindHeartbeat, kindHeartbeat}},
		{"a new incarnation", 2, []ha.Message{beat, booted, booted}, []wire.Kind{kindHeartbeat, kindHeartbeat, kindSameHeartbeat}},
		{"a refusal", 2, []ha.Message{ack, refused, refused}, []wire.Kind{kindAck, kindAck, kindSameAck}},
		{"others between", 2, []ha.Message{beat, everyMessage[1], everyMessage[2], numbered(beat, 7)}, []wire.Kind{kindHeartbeat, kindAsk, kindClaim, kindSameHeartbeat}},
		{"both kinds", 2, []ha.Message{beat, ack, beat, beat, ack, ack}, []wire.Kind{kindHeartbeat, kindAck, kindHeartbeat, kindSameHeartbeat, kindAck, kindSameAck}},
		{"never two questions alike", 2, []ha.Message{everyMessage[2], everyMessage[2]}, []wire.Kind{kindClaim, kindClaim}},
		{"an older other end", 1, []ha.Message{beat, beat, ack, ack}, []wire.Kind{kindHeartbeat, kindHeartbeat, kindAck, kindAck}},
	} {
		out, in := NewEncoder(test.version), NewDecoder("a")
		for i, m := range test.say {
			kind, got := travel(t, &out, &in, m)
			if kind != test.kinds[i] {
				t.Errorf("%s: message %d has kind %d, want %d", test.name, i, kind, test.kinds[i])
			}
			if !reflect.DeepEqual(got, m) {
				t.Errorf("%s: message %d came as %+v", test.name, i, got)
			}
		}
	}
}

// A calm heartbeat must stay a few bytes: its size is what a witness of many
// pairs is made of.
func TestShortFormIsShort(t *testing.T) {
	out := NewEncoder(2)
	if _, _, err := out.Frame(everyMessage[0]); err != nil {
		t.Fatal(err)
	}
	again := everyMessage[0].(ha.Heartbeat)
	again.Seq = 1 << 31
	_, body, err := out.Frame(again)
	if err != nil {
		t.Fatal(err)
	}
	data, err := wire.Encode(body)
	if err != nil || len(data) > 5 {
		t.Errorf("%d bytes: %v", len(data), err)
	}
}

func TestNothingToRepeat(t *testing.T) {
	in := NewDecoder("a")
	seq, err := wire.Encode(uint64(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []wire.Kind{kindSameHeartbeat, kindSameAck} {
		if m, err := in.Message(kind, seq); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("kind %d: %+v, %v", kind, m, err)
		}
	}
}
