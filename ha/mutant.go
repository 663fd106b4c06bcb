package ha

// mutant switches off single rules of the protocol. Tests set it to show that
// the simulator finds what then goes wrong; production code never does.
type mutant uint64

const (
	mutantLeaseFromReceipt mutant = 1 << iota
	mutantNoPromise
	mutantNoRestartWait
	mutantAckAfterPromise
	mutantDetachAtOnce
	mutantForeverAtOnce
	mutantNoQuiet
	mutantSayBeforeStored
	mutantOldRevision
	mutantRefusalNotFinal
	mutantOutdatedClaims
	mutantHandoverKeepsEpoch
	mutantArmAtOnce
	mutantKnownAnyRevision
	mutantBuryEarly
	mutantLearnSameEpoch
	mutantAckOfOtherBoot
	mutantNoDistrust
	mutantSeizeKeepsEpoch
	mutantNoColdStartWait
	mutantForceBreaksLeases
	mutantAskIsEnough
	mutantGrantNotNoted
	mutantUnconfirmedShot
	mutantFencedColdStart
)

func (m mutant) has(x mutant) bool { return m&x != 0 }
