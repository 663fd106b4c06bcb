package api

import "time"

// Time is RFC 3339 with milliseconds in JSON.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.UTC().Format(timeLayout)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(text []byte) (err error) {
	t.Time, err = time.Parse(time.RFC3339, string(text))
	return err
}

// MarshalJSON keeps the embedded time's own encoding out of the way.
func (t Time) MarshalJSON() ([]byte, error) {
	text, err := t.MarshalText()
	return append(append([]byte{'"'}, text...), '"'), err
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (t *Time) UnmarshalJSON(data []byte) error {
	if len(data) < 2 || data[0] != '"' {
		return Errorf(Usage, "not a time: %s", data)
	}
	return t.UnmarshalText(data[1 : len(data)-1])
}

// VM is what `vmctl vm show` prints. State uses QEMU's run-state words, plus
// "stopped", "frozen" (its lease has run out) and "unknown" (its owner cannot
// be asked).
type VM struct {
	Name       string      `json:"name"`
	UUID       string      `json:"uuid"`
	State      string      `json:"state"`
	Reason     string      `json:"reason,omitempty"` // why the state is what it is
	Owner      string      `json:"owner"`
	Epoch      uint64      `json:"epoch"`
	Node       string      `json:"node"` // the node that answers
	Run        bool        `json:"run"`  // wanted to be running
	Protection Protection  `json:"protection"`
	RPOSeconds *float64    `json:"rpo_seconds"` // age of the newest checkpoint on the peer; null without one
	Checkpoint *Checkpoint `json:"checkpoint"`
	Replica    *Replica    `json:"replica"`
	Lease      *Lease      `json:"lease"`
	GuestAgent *GuestAgent `json:"guest_agent,omitempty"` // null: not running, or no port for one
	PID        int         `json:"pid"`
	QMPSocket  string      `json:"qmp_socket"`
	SerialLog  string      `json:"serial_log"`
	VNCSocket  string      `json:"vnc_socket,omitempty"` // of its screen on its owner; empty: none, or not running
	CPUs       int         `json:"cpus"`
	Memory     string      `json:"memory"`
	Restarts   int         `json:"restarts"`
	Spec       any         `json:"spec,omitempty"`
	Home       string      `json:"home,omitempty"` // the node its user placed it on
	Recovery   *Recovery   `json:"recovery,omitempty"`
	Warnings   []string    `json:"warnings,omitempty"` // about what was just done

	Kept []Kept `json:"kept,omitempty"` // disks that former owners wrote last
	// Verified is the last verification of its replica by this owner.
	Verified *Verification `json:"verified,omitempty"`
}

// Recovery says where a guest stands on its way to running here, or home. State
// is one of idle, waiting, starting, running, retrying, failed, left.
type Recovery struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Protection is what is kept up for a guest.
type Protection struct {
	Level           string  `json:"level"`
	Now             string  `json:"now,omitempty"` // the level that holds now, as the owner says
	IntervalSeconds float64 `json:"interval_seconds"`
	ResyncRate      int64   `json:"resync_rate,omitempty"` // bytes a second; 0: no bound
}

// Checkpoint describes the newest one that the peer has committed.
type Checkpoint struct {
	Epoch    uint64  `json:"epoch"`
	Sequence uint64  `json:"sequence"`
	Time     Time    `json:"time"`
	PauseMS  float64 `json:"pause_ms"`
	Bytes    int64   `json:"bytes"`
}

// Replica describes the peer's copy. State is one of none, connecting,
// resync, synced, outdated.
type Replica struct {
	Node           string  `json:"node"`
	State          string  `json:"state"`
	Reason         string  `json:"reason,omitempty"`
	SyncedSequence uint64  `json:"synced_sequence"`
	Progress       float64 `json:"progress"` // of a resync, 0 to 1
	// RemainingSeconds is how long the resync will take if it goes on as it went
	// until now; left out where that is not known.
	RemainingSeconds float64 `json:"remaining_seconds,omitempty"`
	Trial            *Trial  `json:"trial,omitempty"` // with protection resume, as the owner says
	// Standby says whether a QEMU waits there to take the guest; empty: it is not
	// known, or the node is of an older version.
	Standby       string  `json:"standby,omitempty"`
	StandbyReason string  `json:"standby_reason,omitempty"` // why there is none
	Resync        *Resync `json:"resync,omitempty"`         // of the disks

	Fallback *Fallback `json:"fallback,omitempty"` // left out when it is in sync
}

// Kinds of a Resync.
const (
	ResyncFull    = "full"    // everything is compared
	ResyncPartial = "partial" // only what was written while the replica was not reached
)

// Resync is how the replica's disks are made whole: the present or last time, with
// a Kind; DirtyBytes is what may differ now, also while the peer is away.
type Resync struct {
	Kind          string `json:"kind,omitempty"`
	TotalBytes    int64  `json:"total_bytes"`
	ComparedBytes int64  `json:"compared_bytes"`
	SentBytes     int64  `json:"sent_bytes"`
	DirtyBytes    int64  `json:"dirty_bytes"`
}

// Values of Replica.Standby.
const (
	StandbyReady    = "ready"
	StandbyStarting = "starting"
	StandbyOff      = "off"
)

// Lease is the permission to run.
type Lease struct {
	Required         bool    `json:"required"`
	RemainingSeconds float64 `json:"remaining_seconds"` // below zero: expired
}

// Node describes this node.
type Node struct {
	Name        string  `json:"name"`
	Version     string  `json:"version"`
	PID         int     `json:"pid"`
	Started     Time    `json:"started"`
	Listen      string  `json:"listen"`
	Accel       string  `json:"accel"`
	QEMU        string  `json:"qemu"`
	CPUs        int     `json:"cpus"`
	MemoryBytes int64   `json:"memory_bytes"`
	Maintenance bool    `json:"maintenance"`
	Guests      int     `json:"guests"`
	Alarms      []Alarm `json:"alarms"`

	Notify []NotifyTarget `json:"notify,omitempty"` // who hears of events and alarms
}

// Alarm is a condition that lasts until it is mended.
type Alarm struct {
	Kind  string `json:"kind"`
	VM    string `json:"vm,omitempty"`
	Text  string `json:"text"`
	Since Time   `json:"since"`
}

// Cluster describes the cluster this node is in.
type Cluster struct {
	Name    string   `json:"name"`
	ID      string   `json:"id"`
	Mode    string   `json:"mode"` // witness, fence, bias or none
	Bias    string   `json:"bias,omitempty"`
	Self    string   `json:"self"`
	Members []Member `json:"members"`
	Witness *Witness `json:"witness"`

	FenceDelaySeconds float64 `json:"fence_delay_seconds,omitempty"`
}

// ModeChange says who is to be the third vote.
type ModeChange struct {
	Mode         string  `json:"mode"`
	Bias         string  `json:"bias,omitempty"`
	DelaySeconds float64 `json:"fence_delay_seconds,omitempty"`
}

// FenceCheck is what a node's fencing device says of the other node.
type FenceCheck struct {
	Node  string `json:"node"`
	Agent string `json:"agent"`
	Peer  string `json:"peer"`
	Power string `json:"power"` // on or off
}

// Member is one node of a cluster.
type Member struct {
	Name      string   `json:"name"`
	Addr      string   `json:"addr"`
	Reachable bool     `json:"reachable"`
	SeenAgo   *float64 `json:"seen_seconds_ago"`
	// What it has for guests, 0 if it has not said so; what it would have to hold
	// without the other node; and whether that fits, null if not known.
	CPUs        int   `json:"cpus"`
	MemoryBytes int64 `json:"memory_bytes"`
	NeededCPUs  int   `json:"needed_cpus"`
	NeededBytes int64 `json:"needed_bytes"`
	Fits        *bool `json:"fits"`
	// Of that memory what is in files: the size of its tmpfs, 0 if it has not said so,
	// and what of it would be needed.
	FileBytes       int64 `json:"file_bytes"`
	NeededFileBytes int64 `json:"needed_file_bytes"`

	State MemberState `json:"state,omitempty"` // of the peer, by its own last word
}

// MemberState is what a node announced.
type MemberState string

// The states of members.
const (
	MemberInService   MemberState = ""
	MemberMaintenance MemberState = "maintenance"
	MemberDown        MemberState = "down" // it was shut down on purpose
)

// Witness is the third voter.
type Witness struct {
	Name      string   `json:"name"`
	Addr      string   `json:"addr"`
	Reachable bool     `json:"reachable"`
	SeenAgo   *float64 `json:"seen_seconds_ago"`
}

// Token admits one node, or enrols one cluster with a witness.
type Token struct {
	Token   string `json:"token"`
	Expires Time   `json:"expires"`
}

// Event is one line of the event log.
type Event struct {
	Sequence uint64            `json:"sequence"`
	Time     Time              `json:"time"`
	Node     string            `json:"node"`
	Kind     string            `json:"kind"`
	VM       string            `json:"vm,omitempty"`
	Severity string            `json:"severity"` // info, warning, alarm
	Message  string            `json:"message"`
	Detail   map[string]string `json:"detail,omitempty"`
}

// Why explains a guest's place: the standing verdict and how it came about.
type Why struct {
	VM      string `json:"vm"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	// Recovery is what the node that owns it does about its start, or its way home.
	Recovery  *Recovery `json:"recovery,omitempty"`
	Isolation string    `json:"isolation,omitempty"` // what happens to it when its lease ends
	Fallback  *Fallback `json:"fallback,omitempty"`  // what it would begin from if the peer were promoted by hand
	History   []Event   `json:"history"`
}

// HAStatus is what `vmctl ha status` prints.
type HAStatus struct {
	Node    string    `json:"node"`
	Mode    string    `json:"mode"`
	Peer    *Member   `json:"peer"`
	Witness *Witness  `json:"witness"`
	Guests  []HAGuest `json:"guests"`
}

// HAGuest is a guest as the lease core sees it.
type HAGuest struct {
	VM          string   `json:"vm"`
	Owner       string   `json:"owner"`
	Epoch       uint64   `json:"epoch"`
	Run         bool     `json:"run"`
	Protection  string   `json:"protection"`
	Outdated    bool     `json:"replica_outdated"`
	Lease       *Lease   `json:"lease"`
	Verdict     string   `json:"verdict"`
	Reason      string   `json:"reason"`
	LastRenewal *float64 `json:"last_renewal_seconds_ago"` // as this node granted it; null: never
}

// Status is one screen; Protected answers "am I protected?".
type Status struct {
	Protected bool     `json:"protected"`
	Summary   string   `json:"summary"`
	Node      Node     `json:"node"`
	Cluster   *Cluster `json:"cluster"`
	VMs       []VM     `json:"vms"`
}
