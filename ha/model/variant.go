package model

import "vmctl/ha"

// Variant is a protocol with one rule broken at the edge of the machines.
type Variant string

// Variants that are known to be unsafe.
const (
	Receipt       Variant = "lease-from-receipt"      // not from the send time
	Relative      Variant = "relative-timer"          // stands still while the host is suspended
	AgentEnforced Variant = "agent-enforces-deadline" // there is no guard: a paused agent stops nothing
	Forgetful     Variant = "witness-forgets"         // its records, over a restart
	Gateway       Variant = "gateway-as-arbiter"      // something both sides can ping, without a memory
	NoArbiter     Variant = "no-arbiter"              // silence of the peer is taken for its death
	Unconfirmed   Variant = "fence-unconfirmed"       // an accepted order counts as a node that is off
	OldBeat       Variant = "fence-old-heartbeat"     // a restarted node believes what was said to an earlier incarnation
)

// Variants lists them all.
var Variants = []Variant{Receipt, Relative, AgentEnforced, Forgetful, Gateway, NoArbiter, Unconfirmed, OldBeat}

// late is the lease counted from the receipt of its acknowledgement.
func (w *world) late(i int, ev ha.Event) {
	in, ok := ev.(ha.Received)
	if !ok || w.variant != Receipt {
		return
	}
	if ack, ok := in.Message.(ha.Ack); ok && ack.Boot == w.host[i].boot {
		for _, grant := range ack.Grants {
			m := &w.host[i].machine[guestIndex(grant.Guest)]
			if grant.OK && m.alive && m.epoch == grant.Epoch {
				m.deadline = max(m.deadline, w.host[i].now+ha.Time(timing().Lease))
			}
		}
	}
}

// gateway answers whoever can reach it.
func gateway(ev ha.Event) []ha.Action {
	in, ok := ev.(ha.Received)
	if !ok {
		return nil
	}
	me := ids[third]
	switch m := in.Message.(type) {
	case ha.Heartbeat:
		ack := ha.Ack{From: me, FromBoot: 1, Boot: m.Boot, Seq: m.Seq}
		for _, r := range m.Renewals {
			ack.Grants = append(ack.Grants, ha.Grant{Guest: r.Guest, Epoch: r.Epoch, Rev: r.Rev, OK: true})
		}
		return []ha.Action{ha.Send{To: m.From, Message: ack}}
	case ha.Ask:
		return []ha.Action{ha.Send{To: m.From, Message: ha.AskReply{
			From: me, FromBoot: 1, Boot: m.Boot, Seq: m.Seq, Guest: m.Guest, Epoch: m.Epoch, Would: true,
		}}}
	case ha.Claim:
		return []ha.Action{ha.Send{To: m.From, Message: ha.ClaimReply{
			From: me, FromBoot: 1, Boot: m.Boot, Seq: m.Seq, ID: m.ID, Guest: m.Guest, Epoch: m.Epoch, OK: true,
		}}}
	}
	return nil
}

// believe gives a started node the last heartbeat that an earlier incarnation
// heard, as if it were said to this one.
func (w *world) believe(i int) {
	if beat := w.beat[i]; w.variant == OldBeat && beat.Boot != 0 {
		beat.To = w.host[i].boot
		w.feed(i, ha.Received{Message: beat})
	}
}

// presume promotes what a silent peer owns.
func (w *world) presume() {
	for i := range nodes {
		for g := range w.count {
			if r := w.host[i].store[g]; w.runs(i) && r.ok && r.rec.Owner == ids[1-i] {
				w.feed(i, ha.Promote{Guest: guests[g], ConfirmPeerOff: true})
			}
		}
	}
}
