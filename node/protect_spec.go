package node

import (
	"crypto/sha256"

	"github.com/vmihailenco/msgpack/v5"

	"vmctl/vm"
)

// specHash names what device state belongs to: the parts of a spec that change
// the machine.
func specHash(spec vm.Spec) []byte {
	spec.Protection, spec.Restart, spec.Recovery, spec.Autostart = vm.Protection{}, vm.Restart{}, vm.Recovery{}, false
	spec.Isolation, spec.Standby = "", nil
	data, err := msgpack.Marshal(spec)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(data)
	return sum[:]
}
