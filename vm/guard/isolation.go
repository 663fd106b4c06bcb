package guard

// Isolation is the answer to the end of a lease. Either way the guest does not
// run on.
type Isolation string

// Values of Isolation.
const (
	Freeze Isolation = "freeze" // a later renewal lets it go on where it was
	Stop   Isolation = "stop"   // QEMU is killed; ReasonIsolated
)

// isolations are the numbers on the wire.
var isolations = [...]Isolation{Freeze, Stop}

func (i Isolation) number() (uint64, bool) {
	for n, known := range isolations {
		if i == known || i == "" && known == Freeze {
			return uint64(n), true
		}
	}
	return 0, false
}
