package lab

import (
	"os"
	"path/filepath"
	"strings"
)

// another is a QEMU that has a device at another place while a file says so: it
// starts, waits and boots, but does not load the state of the host's own.
const another = `if [ -e "$0.another" ]; then
  for arg; do set -- "$@" "${arg/bus=pcie.0,addr=0x3,rng=rng0/bus=pcie.0,addr=0x6,rng=rng0}"; shift; done
fi
exec QEMU "$@"
`

// ChangeableQEMU gives the host a QEMU that SetAnother turns into one that does not
// load the other host's states.
func (h *Host) ChangeableQEMU() error {
	return h.Install(filepath.Base(h.OwnQEMU()), strings.Replace(another, "QEMU", h.OwnQEMU(), 1))
}

func (h *Host) wrapper() string { return filepath.Join(h.bin(), filepath.Base(h.OwnQEMU())) }

// SetAnother counts from the next start of a QEMU.
func (h *Host) SetAnother(on bool) error {
	if on {
		return os.WriteFile(h.wrapper()+".another", nil, 0o600)
	}
	return os.Remove(h.wrapper() + ".another")
}
