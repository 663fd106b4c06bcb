package api

// States of a Trial.
const (
	TrialUnknown = "unknown" // not found out yet
	TrialLoads   = "loads"
	TrialRefused = "refused"
)

// Trial says whether the peer's QEMU was seen to load a state that this node's
// QEMU saved, of the guest's machine. Until it was, the guest would be booted on
// the peer for all that is known, as with the protection `restart`.
type Trial struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Why says why the peer would not resume the guest for all that is known.
func (t *Trial) Why() string {
	switch {
	case t != nil && t.State == TrialRefused:
		return "the peer cannot load its state: " + t.Reason
	case t != nil && t.Reason != "":
		return "it is not known whether the peer can load its state: " + t.Reason
	}
	return "it is not known yet whether the peer can load its state"
}

// Covered is how well a guest is covered now, in words of Protection.Level: what
// its user asked for, or less.
func (v VM) Covered() string {
	switch {
	case v.Replica == nil || v.Replica.State != "synced":
		return "none"
	case v.Protection.Level == "resume" && (v.Replica.Trial == nil || v.Replica.Trial.State != TrialLoads):
		return "restart"
	}
	return v.Protection.Level
}
