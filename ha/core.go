package ha

import "fmt"

// Setup is what a node starts from. Boot must be higher than in every earlier
// incarnation, and stored before it is used. Start is the local time of the
// start; Cluster and Records are what was persisted.
type Setup struct {
	Self    NodeID
	Boot    uint64
	Timing  Timing
	Start   Time
	Cluster Cluster
	Records []Record
}

// Core decides for one node: holder of the guests it owns, candidate and
// granter for those of its peer. Not safe for concurrent use.
type Core struct {
	voter
	cluster     Cluster
	clusterDisk Cluster
	clusterSafe bool // clusterDisk is what the store holds

	seq      uint64
	claims   uint64 // last claim id
	arms     uint64 // last arm number
	beatAt   Time
	thirdAt  Time // last heartbeat to the witnesses
	urgent   bool
	sent     []sentBeat
	contacts []contact // sorted by id
	peerUp   bool
	peerBeat Time // last heartbeat of the peer
	lastTick Time
	since    Time // when the configuration last changed, at the earliest the start
	retry    []Event
	alarms   []alarmKey // raised ones, sorted
	knows    bool       // the peer has heard this incarnation
	shot     shot

	step Event // the one under way
	undo *Core
}

// NewCore returns a core that holds no lease yet.
func NewCore(s Setup) (*Core, error) {
	if s.Self == "" || s.Boot == 0 {
		return nil, fmt.Errorf("ha core: it needs a node name and an incarnation number")
	}
	if err := s.Timing.Validate(); err != nil {
		return nil, err
	}
	if s.Cluster.Nodes == [2]NodeID{} {
		s.Cluster.Nodes[0], s.Cluster.Mode = s.Self, ModeNone
	}
	if !s.Cluster.has(s.Self) {
		return nil, fmt.Errorf("ha core: %s is not a node of its own cluster %v", s.Self, s.Cluster.Nodes)
	}
	c := &Core{
		voter:   newVoter(s.Self, s.Boot, s.Timing, s.Start, s.Records),
		cluster: s.Cluster, clusterDisk: s.Cluster, clusterSafe: true,
		beatAt: s.Start - Time(s.Timing.Heartbeat), thirdAt: s.Start - Time(s.Timing.Lease), peerBeat: s.Start, lastTick: s.Start, since: s.Start,
		urgent: true,
	}
	c.node = true
	for i := range c.guests {
		c.guests[i].part = &part{}
		// How an unfinished takeover came about is not recorded: leases of the
		// former owner that this node acknowledged may be alive.
		if g := &c.guests[i]; g.rec.Owner == c.self && g.rec.Taking {
			g.hold.quiet = c.start + c.window
		}
	}
	return c, nil
}

// Step handles one event that happened at now and returns what to do about it.
func (c *Core) Step(now Time, ev Event) []Action {
	if failed, ok := ev.(PersistFailed); ok {
		return c.recover(failed)
	}
	c.step = ev
	c.save()
	c.clock(now, ev)
	if c.stored && c.broken {
		c.broken = false
		c.alarm(AlarmStorage, "", false, "")
	}
	again := c.retry // before anything newer: the order of the engine's words matters
	c.retry = nil
	for _, e := range again {
		c.handle(e)
	}
	c.handle(ev)
	c.settle()
	var durable []Action
	if !c.clusterSafe || c.clusterDisk != c.cluster {
		durable = append(durable, PersistCluster{Cluster: c.cluster})
		c.clusterDisk, c.clusterSafe = c.cluster, true
	}
	return c.flush(&c.undo.voter, durable)
}

func (c *Core) handle(ev Event) {
	switch e := ev.(type) {
	case Received:
		c.message(e.Message)
	case PeerLink:
		c.urgent = c.urgent || (e.Up && !c.peerUp)
		c.peerUp = e.Up
	case WitnessLink:
		c.urgent = c.urgent || e.Up
	case Own:
		c.own(e)
	case Forget:
		c.forget(e)
	case SetRun:
		c.setRun(e)
	case SetLevel:
		c.setLevel(e)
	case SetCluster:
		c.setCluster(e)
	case ReplicaState:
		c.replicaState(e)
	case CandidateState:
		c.candidateState(e)
	case Armed:
		c.armed(e)
	case TakenOver:
		c.takenOver(e)
	case Fenced:
		c.fenced(e)
	case Promote:
		c.promote(e)
	case Handover:
		c.handover(e)
	}
}

// settle draws the conclusions of the event for every guest, then speaks.
func (c *Core) settle() {
	for i := range c.guests {
		g := &c.guests[i]
		if g.rec.Owner != c.self {
			c.stand(g)
		}
		if g.rec.Owner == c.self {
			c.hold(g)
		}
	}
	c.defend()
	c.bury()
	if c.urgent || c.now-c.beatAt >= Time(c.timing.Heartbeat) {
		c.beat()
	}
	c.watch()
}

// clock keeps time from running backwards and notices a late tick.
func (c *Core) clock(now Time, ev Event) {
	if now < c.now {
		c.alarmWhy(AlarmClock, "", true, func() string { return fmt.Sprintf("the clock went back by %s", age(c.now, now)) })
		return
	}
	c.now = now
	if _, tick := ev.(Tick); !tick {
		return
	}
	late := now - c.lastTick
	c.alarmWhy(AlarmClock, "", late > Time(c.timing.Lease)/2, func() string { return fmt.Sprintf("the agent did not run for %s", age(now, now-late)) })
	c.lastTick = now
}

func (c *Core) peer() NodeID { return c.cluster.peerOf(c.self) }

func (c *Core) message(m Message) {
	from := m.Sender()
	if from == "" || (from != c.peer() && !c.witnessInUse(from)) {
		return
	}
	switch m := m.(type) {
	case Heartbeat:
		if from == c.peer() {
			c.heartbeat(m)
		}
	case Ack:
		c.heard(from, m.FromBoot)
		if m.Boot == c.boot || c.mutant.has(mutantAckOfOtherBoot) {
			c.acked(m)
		}
	case AskReply:
		c.heard(from, m.FromBoot)
		if m.Boot == c.boot {
			c.answered(m)
		}
	case ClaimReply:
		c.heard(from, m.FromBoot)
		if m.Boot == c.boot {
			c.claimAnswered(m)
		}
	}
}

// heartbeat is the granter's side of a node.
func (c *Core) heartbeat(m Heartbeat) {
	c.heard(m.From, m.Boot)
	if !c.fresh(m.From, m.Boot, m.Seq) {
		return
	}
	c.peerBeat = c.now
	c.knows = c.knows || m.To == c.boot
	c.shot.heard = true
	if m.Cluster.newerThan(c.cluster) && c.clusterRefusal(m.Cluster) == "" {
		c.changeCluster(m.Cluster)
	}
	for _, r := range m.Handovers {
		c.gift(m.From, r)
	}
	ack := c.receive(m)
	c.compare()
	for _, r := range m.Renewals {
		if r.Gone {
			ack.Beat = c.seq
		}
		if g := c.find(r.Guest); g != nil && g.rec.Handed && r.Epoch >= g.rec.Epoch {
			g.rec.Handed = false
		}
	}
	c.do(Send{To: m.From, Message: ack})
}

// beat sends the same heartbeat to every voter that may acknowledge a lease.
func (c *Core) beat() {
	to := c.voters()
	if c.calm() {
		to = to[:1]
	} else {
		c.thirdAt = c.now
	}
	c.beatAt, c.urgent = c.now, false
	if len(to) == 0 {
		return
	}
	hb := Heartbeat{From: c.self, Boot: c.boot, Seq: c.nextSeq(), Cluster: c.cluster}
	if peer := c.peer(); peer != "" {
		hb.To = c.contact(peer).boot
	}
	for i := range c.guests {
		r := c.guests[i].rec
		if r.Owner == c.self {
			hb.Renewals = append(hb.Renewals, r.shared())
		}
		if r.Handed {
			hb.Handovers = append(hb.Handovers, r.shared())
		}
	}
	for _, id := range to {
		c.do(Send{To: id, Message: hb})
	}
}

func (c *Core) reply(id uint64, code Code, text string) {
	if id != 0 {
		c.do(Reply{ID: id, Code: code, Text: text})
	}
}
