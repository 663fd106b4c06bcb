package recovery

import "vmctl/ha"

// State is where a guest stands, for people: Phase is one of the words below,
// Text says why.
type State struct {
	Phase string
	Text  string
}

// Phases. A guest of another node, or one that nobody wants to run, is idle.
const (
	PhaseIdle     = "idle"
	PhaseWaiting  = "waiting"
	PhaseStarting = "starting"
	PhaseRunning  = "running"
	PhaseRetrying = "retrying"
	PhaseFailed   = "failed"
	PhaseLeft     = "left"
)

// State says where a guest stands now.
func (p *Planner) State(id ha.GuestID) State {
	g := p.find(id)
	if g == nil {
		return State{Phase: PhaseIdle}
	}
	words := [...]string{PhaseIdle, PhaseWaiting, PhaseStarting, PhaseRunning, PhaseRetrying, PhaseFailed, PhaseLeft}
	s := State{Phase: words[g.phase], Text: g.noted.Text}
	switch {
	case g.alarm != "":
		s.Text = g.alarmText
	case g.phase == idle || g.phase == running && g.noted.Word != HomeWaits && g.noted.Word != HomeGoes && g.noted.Word != HomeFailed:
		s.Text = ""
	}
	return s
}
