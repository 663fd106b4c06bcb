package sim

import (
	"fmt"
	"strings"
	"time"

	"vmctl/ha"
)

// lastCheckpoint is how long a guest is stopped before its owner gives it away.
const lastCheckpoint = 100 * time.Millisecond

// handOver gives a guest to the peer: after some preparation it is stopped, the
// peer gets the rest of it, and the core decides. Whatever fails before that,
// the guest goes on here.
func (st *stage) handOver(text string, v *volume, streamed bool, preparation time.Duration, then func(ha.Reply)) {
	done := func(r ha.Reply) {
		if text != "" {
			st.answer(text, r)
		}
		if then != nil {
			then(r)
		}
	}
	h, bad := st.ownerFor(v)
	if bad != "" {
		done(ha.Reply{Code: ha.CodeUnreachable, Text: bad})
		return
	}
	life := h.life
	if bad = st.unfit(h, v, life); bad != "" {
		done(ha.Reply{Code: ha.CodeConflict, Text: bad})
		return
	}
	st.after(preparation, func() {
		if bad := st.unfit(h, v, life); bad != "" {
			done(ha.Reply{Code: ha.CodeConflict, Text: bad})
			return
		}
		last, ok := v.capture(h)
		if !ok {
			done(ha.Reply{Code: ha.CodeStorage, Text: "the last checkpoint could not be numbered"})
			return
		}
		before := h.machine[v.index]
		h.machine[v.index] = machine{}
		st.giving[v] = true
		st.after(lastCheckpoint, func() { st.give(h, v, gift{before, last, life, streamed}, done) })
	})
}

// unfit says why a guest cannot be handed over now.
func (st *stage) unfit(h *host, v *volume, life uint64) string {
	peer := st.other(h)
	switch {
	case h.life != life || !h.running():
		return fmt.Sprintf("the agent of %s ended", h.id)
	case v.live() != h || !st.executes(h, v):
		return "it does not run"
	case h.records[v.id].Level == ha.LevelNone:
		return "it is not protected: the peer has nothing of it"
	case !v.engine.attached:
		return "its replica is not complete"
	case !st.w.linked(h, peer):
		return fmt.Sprintf("%s does not answer", peer.id)
	}
	return ""
}

// gift is a guest that is stopped to be given away.
type gift struct {
	before   machine
	last     checkpoint
	life     uint64 // of the owner's agent
	streamed bool
}

// give ends the stop. An agent that died in it leaves the guest to the guard,
// which lets it go on.
func (st *stage) give(h *host, v *volume, g gift, done func(ha.Reply)) {
	delete(st.giving, v)
	back := func() {
		if h.power {
			h.machine[v.index] = g.before
		}
	}
	bad := ""
	switch {
	case h.life != g.life:
		bad = fmt.Sprintf("the agent of %s ended", h.id)
	case !st.w.linked(h, st.other(h)):
		bad = fmt.Sprintf("%s does not answer", st.other(h).id)
	case !v.commit(st.other(h), g.last):
		bad = fmt.Sprintf("%s has not committed the last checkpoint", st.other(h).id)
	}
	if bad != "" {
		back()
		done(ha.Reply{Code: ha.CodeUnreachable, Text: bad})
		return
	}
	st.lastAsk++
	st.asked[st.lastAsk] = request{then: func(r ha.Reply) {
		if r.Code != ha.OK {
			back()
		}
		done(r)
	}}
	h.deliver(ha.Handover{ID: st.lastAsk, Guest: v.id, Streamed: g.streamed})
}

// empty hands over what a node owns, guest after guest, and reports.
func (st *stage) empty(h *host, rest []*volume, moved, stay []string) {
	for len(rest) > 0 && h.records[rest[0].id].Owner != h.id {
		rest = rest[1:]
	}
	if !h.running() {
		st.answer(fmt.Sprintf("maintenance on %s", h.id), ha.Reply{Code: ha.CodeUnreachable, Text: "its agent does not answer any more"})
		return
	}
	if len(rest) == 0 {
		st.answer(fmt.Sprintf("maintenance on %s", h.id), ha.Reply{Text: report(moved, stay)})
		return
	}
	v := rest[0]
	st.handOver("hand over "+string(v.id), v, false, 0, func(r ha.Reply) {
		if r.Code == ha.OK {
			moved = append(moved, string(v.id))
		} else {
			stay = append(stay, string(v.id))
		}
		st.empty(h, rest[1:], moved, stay)
	})
}

func report(moved, stay []string) string {
	text := "moved " + strings.Join(moved, ", ")
	if len(moved) == 0 {
		text = "nothing moved"
	}
	if len(stay) > 0 {
		text += "; stays: " + strings.Join(stay, ", ")
	}
	return text
}
