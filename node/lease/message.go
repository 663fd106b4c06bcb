package lease

import (
	"fmt"

	"vmctl/ha"
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
	// From wire version 2 on: the heartbeat or acknowledgement that this
	// connection carried last, but for its sequence number, which is the body.
	kindSameHeartbeat
	kindSameAck
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
