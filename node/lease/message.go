package lease

import (
	"fmt"

	"vmctl/ha"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// Kinds of the lease protocol's frames.
const (
	kindHeartbeat wire.Kind = 16 + iota
	kindAck
	kindAsk
	kindAskReply
	kindClaim
	kindClaimReply
)

// kindOf gives a message's kind.
func kindOf(m ha.Message) (wire.Kind, error) {
	switch m.(type) {
	case ha.Heartbeat:
		return kindHeartbeat, nil
	case ha.Ack:
		return kindAck, nil
	case ha.Ask:
		return kindAsk, nil
	case ha.AskReply:
		return kindAskReply, nil
	case ha.Claim:
		return kindClaim, nil
	case ha.ClaimReply:
		return kindClaimReply, nil
	}
	return 0, fmt.Errorf("no wire form for %T", m)
}

// isReply says whether a message answers one that came in, and so goes back on
// the sender's connection.
func isReply(m ha.Message) bool {
	switch m.(type) {
	case ha.Ack, ha.AskReply, ha.ClaimReply:
		return true
	}
	return false
}

func decodeAs[T ha.Message](body []byte) (ha.Message, error) {
	var m T
	err := wire.Decode(body, &m)
	return m, err
}

// decode reads a frame of the lease protocol and checks that its sender is
// the one the connection proved.
func decode(kind wire.Kind, body []byte, from ha.NodeID) (ha.Message, error) {
	decoders := map[wire.Kind]func([]byte) (ha.Message, error){
		kindHeartbeat: decodeAs[ha.Heartbeat], kindAck: decodeAs[ha.Ack],
		kindAsk: decodeAs[ha.Ask], kindAskReply: decodeAs[ha.AskReply],
		kindClaim: decodeAs[ha.Claim], kindClaimReply: decodeAs[ha.ClaimReply],
	}
	read := decoders[kind]
	if read == nil {
		return nil, fmt.Errorf("lease connection: frame of kind %d: %w", kind, wire.ErrMalformed)
	}
	message, err := read(body)
	if err != nil {
		return nil, err
	}
	if message.Sender() != from {
		return nil, fmt.Errorf("lease connection of %s carries a message of %s: %w", from, message.Sender(), peer.ErrStranger)
	}
	return message, nil
}
