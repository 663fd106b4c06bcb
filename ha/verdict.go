package ha

// Verdict is the machine word of a decision or non-decision.
type Verdict string

// Verdicts of a standby about a guest of its peer, of an owner about its own,
// and of a granter about a renewal or claim.
const (
	// standby
	NoThirdVote     Verdict = "no-third-vote"     // mode none
	Stopped         Verdict = "stopped"           // the user wants it stopped
	Unprotected     Verdict = "unprotected"       // protection level none
	OwnerUnleased   Verdict = "owner-unleased"    // the owner is not (yet) on leases of our witness
	ReplicaOutdated Verdict = "replica-outdated"  // it lacks acknowledged writes
	ReplicaNotReady Verdict = "replica-not-ready" // incomplete, or of another epoch
	NotStandby      Verdict = "not-standby"
	JustStarted     Verdict = "just-started" // restart wait
	LeaseAlive      Verdict = "lease-alive"  // the owner's lease may still be alive
	NoWitness       Verdict = "no-witness"   // the witness is not heard
	Asking          Verdict = "asking"
	OwnerUnheard    Verdict = "owner-unheard" // not since this node started
	FenceDelayed    Verdict = "fence-delayed" // the owner may shoot first
	Fencing         Verdict = "fencing"
	FenceFailed     Verdict = "fence-failed"
	WitnessRefuses  Verdict = "witness-refuses"
	Claiming        Verdict = "claiming"
	Withdrawn       Verdict = "withdrawn"

	// owner
	TookOver  Verdict = "took-over"
	Promoted  Verdict = "promoted" // by an operator
	HandedOut Verdict = "handed-over"
	Yielded   Verdict = "yielded"
	Leased    Verdict = "leased"
	NoLeased  Verdict = "unleased" // runs without a lease: there is no third vote
	Waiting   Verdict = "waiting-for-lease"
	Quiet     Verdict = "waiting-for-old-leases"

	// granter
	Granted       Verdict = "granted"
	Unknown       Verdict = "unknown-guest"
	Removed       Verdict = "removed"
	StaleEpoch    Verdict = "stale-epoch"
	StaleRevision Verdict = "stale-revision"
	WrongOwner    Verdict = "wrong-owner"
	PromisedAway  Verdict = "promised"
	WrongEpoch    Verdict = "wrong-epoch"
	OldClaim      Verdict = "old-claim"
)
