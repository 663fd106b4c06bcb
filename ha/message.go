package ha

// Message is one of Heartbeat, Ack, Ask, AskReply, Claim, ClaimReply. They are
// plain data for any codec.
type Message interface{ Sender() NodeID }

// Heartbeat is what a node says to its peer and the witness, regularly and at
// once when something urgent changed.
type Heartbeat struct {
	From      NodeID
	Boot      uint64 // the sender's incarnation
	Seq       uint64 // rises within an incarnation
	To        uint64 // the receiving node's incarnation, 0: not heard yet
	Cluster   Cluster
	Renewals  []Record // every guest the sender owns, running or not
	Handovers []Record // guests the sender gave away and whose new owner it has not heard yet
}

// Ack answers a heartbeat.
type Ack struct {
	From     NodeID
	FromBoot uint64 // the acknowledging voter's incarnation
	Boot     uint64 // echo of the heartbeat
	Seq      uint64 // echo of the heartbeat
	Beat     uint64 // if a grant is about a removed guest: every heartbeat of this voter up to this Seq is older than the grant
	Grants   []Grant
	Records  []Record // guests this voter knows as yours that you did not list
}

// Grant is the answer to one renewal.
type Grant struct {
	Guest   GuestID
	Epoch   uint64 // echo
	Rev     uint64 // echo; durable at the granter when OK
	OK      bool
	Record  Record // on refusal: what the granter has durably
	Verdict Verdict
}

// Ask is the question before a claim: would you grant it? It changes nothing.
type Ask struct {
	From  NodeID
	Boot  uint64
	Seq   uint64
	Guest GuestID
	Epoch uint64 // the epoch to be claimed
	Force bool   // an operator confirmed that the owner is off: ignore flags, not leases
}

// AskReply answers Ask.
type AskReply struct {
	From     NodeID
	FromBoot uint64
	Boot     uint64 // echo
	Seq      uint64 // echo
	Guest    GuestID
	Epoch    uint64 // echo
	Would    bool
	Record   Record // what the witness has durably
	Verdict  Verdict
	Reason   string
}

// Claim asks the witness to make the sender the owner. It may be repeated with
// a higher Seq; all its other fields stay.
type Claim struct {
	From  NodeID
	Boot  uint64
	Seq   uint64 // the lease of a grant counts from this one's send time
	ID    uint64 // rises within an incarnation; a refusal ends it for good
	To    uint64 // incarnation of the witness this claim is for
	Guest GuestID
	Prior uint64
	Epoch uint64 // Prior + 1
	Force bool
}

// ClaimReply answers Claim.
type ClaimReply struct {
	From     NodeID
	FromBoot uint64
	Boot     uint64 // echo
	Seq      uint64 // echo
	ID       uint64 // echo
	Guest    GuestID
	Epoch    uint64 // echo
	OK       bool
	Record   Record // what the witness has durably
	Verdict  Verdict
	Reason   string
}

// Sender is the voter that made the message. The caller must have checked it
// against the identity the connection proved.
func (m Heartbeat) Sender() NodeID { return m.From }

// Sender: see Heartbeat.Sender.
func (m Ack) Sender() NodeID { return m.From }

// Sender: see Heartbeat.Sender.
func (m Ask) Sender() NodeID { return m.From }

// Sender: see Heartbeat.Sender.
func (m AskReply) Sender() NodeID { return m.From }

// Sender: see Heartbeat.Sender.
func (m Claim) Sender() NodeID { return m.From }

// Sender: see Heartbeat.Sender.
func (m ClaimReply) Sender() NodeID { return m.From }
