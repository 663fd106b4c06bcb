package vm

import (
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/google/uuid"
)

// What a guest gets when its spec does not say.
const (
	DefaultMachine = "pc-q35-7.2"
	DefaultMemory  = 512 * MiB
	// DefaultCPU is what every x86-64 server of the last twelve years has, Intel
	// or AMD (x86-64-v2 and AES), and what every QEMU emulates, so that a running
	// guest can move between unequal hosts. "max" would differ between versions of
	// QEMU.
	DefaultCPU = "qemu64,+aes,+cx16,+lahf-lm,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3"

	defaultInterval = 0.5  // seconds
	defaultAttempts = 3    // restarts
	defaultWindow   = 3600 // seconds
	defaultBackoff  = 2    // seconds

	defaultStarts       = 3  // attempts
	defaultStartBackoff = 5  // seconds
	defaultSettle       = 60 // seconds
)

// Defaults returns the spec with every open question answered, so that it
// means the same on both hosts and after an upgrade. What the user said is
// kept. accel "auto" becomes what works on h.
func (s Spec) Defaults(h Host) Spec {
	if s.UUID == "" {
		s.UUID = uuid.NewString()
	} else if id, err := uuid.Parse(s.UUID); err == nil && len(s.UUID) == 36 {
		s.UUID = id.String()
	}
	if s.Accel == "" || s.Accel == AccelAuto {
		s.Accel = h.accel()
	}
	s.CPU = either(s.CPU, DefaultCPU)
	s.CPUs = either(s.CPUs, 1)
	s.Memory = either(s.Memory, DefaultMemory)
	s.Machine = either(s.Machine, DefaultMachine)
	s.Display = either(s.Display, DisplayNone)
	s.Protection = s.Protection.defaults()
	s.Restart = s.Restart.defaults()
	s.Isolation = either(s.Isolation, IsolationFreeze)
	s.Recovery = s.Recovery.Defaults()
	for _, p := range []**bool{&s.PVPanic, &s.RNG, &s.GuestAgent} {
		value := on(*p)
		*p = &value
	}

	disks, nics := s.Disks, s.NICs
	s.Disks, s.NICs = nil, nil
	for i, d := range disks {
		d.Name = either(d.Name, "disk"+strconv.Itoa(i))
		if d.Path == "" {
			d.Format = either(d.Format, FormatRaw)
		}
		s.Disks = append(s.Disks, d)
	}
	for i, n := range nics {
		n.Type = either(n.Type, n.guessType())
		n.MAC = either(n.MAC, deriveMAC(s.UUID, i))
		n.Forward = append([]string(nil), n.Forward...)
		s.NICs = append(s.NICs, n)
	}
	return s
}

func (p Protection) defaults() Protection {
	p.Level = either(p.Level, ProtectNone)
	if p.Level == ProtectResume || p.Level == ProtectFT {
		p.IntervalSeconds = either(p.IntervalSeconds, defaultInterval)
	}
	return p
}

func (r Restart) defaults() Restart {
	r.Policy = either(r.Policy, RestartOnFailure)
	if r.Policy != RestartNever {
		r.Attempts = either(r.Attempts, defaultAttempts)
		r.WindowSeconds = either(r.WindowSeconds, defaultWindow)
		r.BackoffSeconds = either(r.BackoffSeconds, defaultBackoff)
	}
	return r
}

// guessType takes the network the other fields speak of.
func (n NIC) guessType() string {
	switch {
	case n.Bridge != "":
		return NICBridge
	case n.Tap != "":
		return NICTap
	}
	return NICUser
}

// deriveMAC gives the i-th card of a guest an address in QEMU's range. It
// comes from the UUID, so both hosts agree without asking.
func deriveMAC(id string, i int) string {
	sum := sha256.Sum256([]byte(id + "/" + strconv.Itoa(i)))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", sum[0], sum[1], sum[2])
}

func either[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
