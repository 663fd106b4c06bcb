package ha

// Mutant is one rule switched off.
type Mutant = mutant

// The mutants of mutant.go.
const (
	MutantLeaseFromReceipt   = mutantLeaseFromReceipt
	MutantNoPromise          = mutantNoPromise
	MutantNoRestartWait      = mutantNoRestartWait
	MutantAckAfterPromise    = mutantAckAfterPromise
	MutantDetachAtOnce       = mutantDetachAtOnce
	MutantForeverAtOnce      = mutantForeverAtOnce
	MutantNoQuiet            = mutantNoQuiet
	MutantSayBeforeStored    = mutantSayBeforeStored
	MutantOldRevision        = mutantOldRevision
	MutantRefusalNotFinal    = mutantRefusalNotFinal
	MutantOutdatedClaims     = mutantOutdatedClaims
	MutantHandoverKeepsEpoch = mutantHandoverKeepsEpoch
	MutantArmAtOnce          = mutantArmAtOnce
	MutantKnownAnyRevision   = mutantKnownAnyRevision
	MutantBuryEarly          = mutantBuryEarly
	MutantLearnSameEpoch     = mutantLearnSameEpoch
	MutantAckOfOtherBoot     = mutantAckOfOtherBoot
	MutantNoDistrust         = mutantNoDistrust
	MutantSeizeKeepsEpoch    = mutantSeizeKeepsEpoch
	MutantNoColdStartWait    = mutantNoColdStartWait
	MutantForceBreaksLeases  = mutantForceBreaksLeases
	MutantAskIsEnough        = mutantAskIsEnough
	MutantGrantNotNoted      = mutantGrantNotNoted
	MutantUnconfirmedShot    = mutantUnconfirmedShot
	MutantFencedColdStart    = mutantFencedColdStart
)

// Mutate switches rules off in a fresh core.
func (c *Core) Mutate(m Mutant) { c.mutate(m) }

// Mutate switches rules off in a fresh witness.
func (w *Witness) Mutate(m Mutant) { w.mutate(m) }

// LeaveOut drops a term of the window.
func (c *Core) LeaveOut(term string) { c.leaveOut(term) }

// LeaveOut drops a term of the window.
func (w *Witness) LeaveOut(term string) { w.leaveOut(term) }

func (v *voter) leaveOut(term string) {
	t := v.timing
	switch term {
	case "drift":
		t.DriftPPM = 0
	case "stop":
		t.Stop = 0
	case "tick":
		t.Tick = 0
	}
	v.window = Time(t.Window())
}

func (v *voter) mutate(m Mutant) {
	v.mutant = m
	if m.has(mutantNoRestartWait) {
		for i := range v.guests {
			v.guests[i].granted = v.start - 2*v.window
		}
	}
}
