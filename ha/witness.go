package ha

import (
	"fmt"
	"sort"
	"sync"
)

// WitnessSetup is what a witness starts from. Boot must be higher than in every
// earlier incarnation, and stored before it is used. Start is the local time of
// the start; Records are what was persisted.
type WitnessSetup struct {
	Self    NodeID
	Boot    uint64
	Timing  Timing
	Start   Time
	Records []Record
}

// Witness is the third vote: a granter without guests.
type Witness struct {
	voter
	claims []claimMark // sorted by (from, guest)
	undo   *Witness
}

// claimMark remembers a sender's newest claim of a guest, so that a refusal is
// final and a delayed copy of an older claim is dropped.
type claimMark struct {
	from     NodeID
	guest    GuestID
	boot, id uint64
	refused  bool
}

// NewWitness returns a witness that waits Window before its first grant of a
// claim.
func NewWitness(s WitnessSetup) (*Witness, error) {
	if s.Self == "" || s.Boot == 0 {
		return nil, fmt.Errorf("ha witness: it needs a name and an incarnation number")
	}
	if err := s.Timing.Validate(); err != nil {
		return nil, err
	}
	return &Witness{voter: newVoter(s.Self, s.Boot, s.Timing, s.Start, s.Records)}, nil
}

// Step handles one event: Tick, Received (Heartbeat, Ask, Claim) or
// PersistFailed; others are ignored.
func (w *Witness) Step(now Time, ev Event) []Action {
	if failed, ok := ev.(PersistFailed); ok {
		return w.recover(failed)
	}
	if w.undo == nil {
		w.undo = spares.Get().(*Witness)
	}
	w.copyTo(w.undo)
	w.now = max(now, w.now)
	if w.stored && w.broken {
		w.broken = false
		w.do(Alarm{Kind: AlarmStorage, On: false, Text: "the store works again"})
	}
	if in, ok := ev.(Received); ok {
		switch m := in.Message.(type) {
		case Heartbeat:
			w.heartbeat(m)
		case Ask:
			w.ask(m)
		case Claim:
			w.claim(m)
		}
	}
	actions := w.flush(&w.undo.voter, nil)
	if !w.stored { // nothing that could fail: a step in a thousand needs its undo
		spares.Put(w.undo)
		w.undo = nil
	}
	return actions
}

// spares are undo copies that no step needs: a process with a thousand
// witnesses, most of them quiet, shares a few. What one holds means nothing.
var spares = sync.Pool{New: func() any { return &Witness{} }}

func (w *Witness) recover(failed PersistFailed) []Action {
	if w.undo == nil {
		return nil
	}
	back := w.undo
	back.distrust(&w.voter)
	back.undo = nil
	already := w.broken
	*w = *back
	w.stored = false
	if already {
		return nil
	}
	return []Action{Alarm{Kind: AlarmStorage, On: true, Text: "cannot store a record, acknowledging nothing: " + failed.Err}}
}

func (w *Witness) heartbeat(m Heartbeat) {
	if !w.fresh(m.From, m.Boot, m.Seq) {
		return
	}
	w.do(Send{To: m.From, Message: w.receive(m)})
}

func (w *Witness) ask(m Ask) {
	reply := AskReply{From: w.self, FromBoot: w.boot, Boot: m.Boot, Seq: m.Seq, Guest: m.Guest, Epoch: m.Epoch}
	if g := w.find(m.Guest); g == nil {
		reply.Verdict, reply.Reason = Unknown, "the witness does not know the guest"
	} else {
		reply.Record = g.rec.shared()
		reply.Verdict, reply.Reason = w.objection(g, m.From, m.Epoch, m.Force)
		reply.Would = reply.Verdict == ""
	}
	w.do(Send{To: m.From, Message: reply})
}

func (w *Witness) claim(m Claim) {
	mark := w.mark(m)
	if m.Boot < mark.boot || (m.Boot == mark.boot && m.ID < mark.id) {
		return
	}
	if m.Boot > mark.boot || m.ID > mark.id {
		mark.boot, mark.id, mark.refused = m.Boot, m.ID, false
	}
	reply := ClaimReply{From: w.self, FromBoot: w.boot, Boot: m.Boot, Seq: m.Seq, ID: m.ID, Guest: m.Guest, Epoch: m.Epoch}
	g := w.find(m.Guest)
	reply.Verdict, reply.Reason = w.judge(g, m, mark.refused)
	reply.OK = reply.Verdict == ""
	mark.refused = !reply.OK
	if reply.OK {
		w.award(g, m)
	}
	if g != nil {
		reply.Record = g.rec.shared()
		verdict := reply.Verdict
		if reply.OK {
			verdict = Granted
		}
		g.note = ""
		w.explain(g, verdict, func() string {
			if reply.OK {
				return fmt.Sprintf("granted epoch %d to %s", m.Epoch, m.From)
			}
			return fmt.Sprintf("refused epoch %d to %s: %s", m.Epoch, m.From, reply.Reason)
		})
	}
	w.do(Send{To: m.From, Message: reply})
}

// judge returns "" for a claim to grant.
func (w *Witness) judge(g *guest, m Claim, refused bool) (Verdict, string) {
	switch {
	case refused && !w.mutant.has(mutantRefusalNotFinal):
		return OldClaim, "this claim was refused before"
	case g == nil:
		return Unknown, "the witness does not know the guest"
	case g.rec.Epoch == m.Epoch && g.rec.Owner == m.From && !g.rec.Gone:
		return "", "" // granted before
	case m.To != w.boot:
		return OldClaim, "the claim is for an earlier incarnation of the witness"
	}
	return w.objection(g, m.From, m.Epoch, m.Force)
}

func (w *Witness) award(g *guest, m Claim) {
	if g.rec.Epoch != m.Epoch {
		former := g.rec
		g.rec = Record{
			Guest: former.Guest, Epoch: m.Epoch, Owner: m.From, Standby: former.Owner,
			Arbiter: w.self, Run: former.Run, Level: former.Level, Outdated: true,
		}
	}
	g.granted = w.now
}

func (w *Witness) mark(m Claim) *claimMark {
	i := sort.Search(len(w.claims), func(i int) bool {
		c := w.claims[i]
		return c.from > m.From || (c.from == m.From && c.guest >= m.Guest)
	})
	if i == len(w.claims) || w.claims[i].from != m.From || w.claims[i].guest != m.Guest {
		w.claims = append(w.claims, claimMark{})
		copy(w.claims[i+1:], w.claims[i:])
		w.claims[i] = claimMark{from: m.From, guest: m.Guest}
	}
	return &w.claims[i]
}

func (w *Witness) copyTo(dst *Witness) {
	claims := dst.claims
	w.voter.copyTo(&dst.voter)
	dst.claims = append(claims[:0], w.claims...)
	dst.undo = nil
}

// Clone returns an independent copy.
func (w *Witness) Clone() *Witness {
	c := &Witness{}
	w.copyTo(c)
	if w.undo != nil {
		c.undo = &Witness{}
		w.undo.copyTo(c.undo)
	}
	return c
}
