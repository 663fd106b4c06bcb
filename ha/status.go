package ha

// Status is a snapshot for people. All times are local CLOCK_BOOTTIME.
type Status struct {
	Self         NodeID
	Boot         uint64
	Now          Time
	Cluster      Cluster
	PeerHeard    Time // 0: not in this incarnation
	WitnessHeard Time // 0: not in this incarnation
	Storage      bool // records can be stored
	Guests       []GuestStatus
	Alarms       []AlarmStatus
}

// GuestStatus is one guest as this node sees it.
type GuestStatus struct {
	Record
	Deadline    Time // owner: until when it may execute; 0 none
	LastGranted Time // standby: when this node last acknowledged the owner's lease; 0 never
	Ready       bool // standby: the replica could be resumed
	Sequence    uint64
	Verdict     Verdict // see Note
}

// AlarmStatus is a raised alarm.
type AlarmStatus struct {
	Kind  AlarmKind
	Guest GuestID
}

// Status returns what the core knows, guests sorted by id.
func (c *Core) Status() Status {
	s := Status{
		Self: c.self, Boot: c.boot, Now: c.now, Cluster: c.cluster, Storage: !c.broken,
		PeerHeard: c.heardAt(c.peer()), WitnessHeard: c.heardAt(c.cluster.witness()),
	}
	for i := range c.guests {
		g := &c.guests[i]
		gs := GuestStatus{
			Record: g.rec, Deadline: c.deadline(g), Ready: g.cand.ready,
			Sequence: g.cand.sequence, Verdict: g.note,
		}
		if g.granted != c.start {
			gs.LastGranted = g.granted
		}
		s.Guests = append(s.Guests, gs)
	}
	for _, a := range c.alarms {
		s.Alarms = append(s.Alarms, AlarmStatus{Kind: a.kind, Guest: a.guest})
	}
	return s
}

func (c *Core) heardAt(id NodeID) Time {
	if k := c.contact(id); id != "" && k.boot != 0 {
		return k.at
	}
	return 0
}

// Records returns the witness' durable table, sorted by guest.
func (w *Witness) Records() []Record {
	list := make([]Record, 0, len(w.guests))
	for i := range w.guests {
		list = append(list, w.guests[i].rec)
	}
	return list
}

// Guests says how many guests the witness knows.
func (w *Witness) Guests() int { return len(w.guests) }

// Knows says whether the witness has a record of the guest.
func (w *Witness) Knows(id GuestID) bool { return w.find(id) != nil }
