package ha

// Mutant is one rule switched off.
type Mutant = mutant

// The mutants of mutant.go.
const (
	MutantLeaseFromReceipt = mutantLeaseFromReceipt
	MutantNoPromise        = mutantNoPromise
	MutantNoRestartWait    = mutantNoRestartWait
	MutantAckAfterPromise  = mutantAckAfterPromise
	MutantDetachAtOnce     = mutantDetachAtOnce
	MutantForeverAtOnce    = mutantForeverAtOnce
	MutantNoQuiet          = mutantNoQuiet
	MutantOldWitnessClaims = mutantOldWitnessClaims
)

// Mutate switches rules off in a fresh core.
func (c *Core) Mutate(m Mutant) { c.mutate(m) }

// Mutate switches rules off in a fresh witness.
func (w *Witness) Mutate(m Mutant) { w.mutate(m) }

func (v *voter) mutate(m Mutant) {
	v.mutant = m
	if m.has(mutantNoRestartWait) {
		for i := range v.guests {
			v.guests[i].granted = v.start - 2*v.window
		}
	}
}
