package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// another is a QEMU that has a device at another place while a file says so: it
// starts, waits and boots, but does not load the state of the host's own.
const another = `#!/bin/bash
if [ -e "$0.another" ]; then
  for arg; do set -- "$@" "${arg/bus=pcie.0,addr=0x3,rng=rng0/bus=pcie.0,addr=0x6,rng=rng0}"; shift; done
fi
exec QEMU "$@"
`

// ChangeableQEMU gives the agent, from its next start on, a QEMU that SetAnother
// turns into one that does not load the other host's states.
func (h *Host) ChangeableQEMU() error {
	h.tools = h.dir + ".tools"
	script := []byte(strings.Replace(another, "QEMU", h.OwnQEMU(), 1))
	return errors.Join(os.MkdirAll(h.tools, 0o700), os.WriteFile(h.wrapper(), script, 0o700))
}

func (h *Host) wrapper() string { return filepath.Join(h.tools, "qemu-system-x86_64") }

// SetAnother counts from the next start of a QEMU.
func (h *Host) SetAnother(on bool) error {
	if on {
		return os.WriteFile(h.wrapper()+".another", nil, 0o600)
	}
	return os.Remove(h.wrapper() + ".another")
}
