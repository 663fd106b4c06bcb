package vm

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/google/uuid"
)

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	machineForm = regexp.MustCompile(`^pc-q35-[0-9]+(\.[0-9]+)+$`)
	cpuForm     = regexp.MustCompile(`^[A-Za-z0-9_.+=,-]+$`)
)

// maxCPU is apart from the form: a bound in there makes half a megabyte of it, in
// every process of the program.
const maxCPU = 512

// findings collects problems, so that the user sees all of them at once.
type findings []string

func (f *findings) add(format string, args ...any) {
	*f = append(*f, fmt.Sprintf(format, args...))
}

// Validate checks a complete spec (after Defaults) against the host that is to
// run it, including the files it names. The error is a *SpecError with every
// problem.
func (s Spec) Validate(h Host) error {
	f := s.check(h)
	s.checkFiles(&f)
	return f.err(s.Name)
}

// ValidateReplica is Validate for the peer, which has its own copies of the
// files that the spec names.
func (s Spec) ValidateReplica(h Host) error {
	f := s.check(h)
	return f.err(s.Name)
}

func (f findings) err(name string) error {
	if len(f) == 0 {
		return nil
	}
	return &SpecError{Name: name, Problems: f}
}

func (s Spec) check(h Host) findings {
	var f findings
	s.checkIdentity(&f)
	s.checkMachine(&f, h)
	s.checkDisks(&f)
	s.checkNICs(&f)
	s.checkBoot(&f)
	s.checkProtection(&f)
	s.checkRestart(&f)
	s.checkRecovery(&f)
	return f
}

// CheckName says whether a guest may be called name. The name ends up in
// process names and on the command line, so it is kept plain.
func CheckName(name string) error {
	if name == "" {
		return &SpecError{Problems: []string{"name is missing"}}
	}
	if !nameForm.MatchString(name) || strings.Contains(name, "..") {
		return &SpecError{Problems: []string{fmt.Sprintf(
			"name %q: use 1 to 63 of a-z, 0-9, '-' and '.', begin with a letter or digit, no '..'", name)}}
	}
	return nil
}

func (s Spec) checkIdentity(f *findings) {
	if err := CheckName(s.Name); err != nil {
		*f = append(*f, err.(*SpecError).Problems...)
	}
	// The UUID is part of paths, so only its canonical form is taken.
	if id, err := uuid.Parse(s.UUID); err != nil || id.String() != s.UUID {
		f.add("uuid %q is not of the form 123e4567-e89b-12d3-a456-426614174000", s.UUID)
	}
}

func (s Spec) checkMachine(f *findings, h Host) {
	if s.CPUs < 1 || s.CPUs > MaxCPUs {
		f.add("cpus %d: use 1 to %d", s.CPUs, MaxCPUs)
	} else if h.CPUs > 0 && s.CPUs > h.CPUs {
		f.add("cpus %d: this host has %d", s.CPUs, h.CPUs)
	}
	switch {
	case s.Memory < 16*MiB:
		f.add("memory %v is less than 16M; was a unit forgotten (512M, 2G)?", s.Memory)
	case s.Memory%MiB != 0:
		f.add("memory %v is not a multiple of 1M", s.Memory)
	case h.Memory > 0 && s.Memory > h.Memory:
		f.add("memory %v: this host has %v", s.Memory, h.Memory/MiB*MiB)
	}
	// The fixed PCI addresses are those of a q35. An unversioned name means
	// another machine on every version of QEMU.
	if !machineForm.MatchString(s.Machine) {
		f.add("machine %q: use a versioned q35 such as %s", s.Machine, DefaultMachine)
	} else if len(h.Machines) > 0 && !slices.Contains(h.Machines, s.Machine) {
		f.add("machine %q is unknown to this host's QEMU", s.Machine)
	}
	switch s.Accel {
	case AccelTCG:
	case AccelKVM:
		if h.accel() != AccelKVM {
			f.add("accel kvm: KVM does not work on this host, use auto or tcg")
		}
	default:
		f.add("accel %q: use auto, kvm or tcg", s.Accel)
	}
	if len(s.CPU) > maxCPU || !cpuForm.MatchString(s.CPU) {
		f.add("cpu %q is not a CPU model of QEMU such as max or Haswell", s.CPU)
	}
	if model, _, _ := strings.Cut(s.CPU, ","); model == "host" {
		if s.Accel != AccelKVM {
			f.add("cpu host needs accel kvm")
		}
		if s.Protection.Level == ProtectResume || s.Protection.Level == ProtectFT {
			f.add("cpu host cannot be resumed on another host, name a model that both hosts have")
		}
	}
	if s.Display != DisplayNone && s.Display != DisplayVNC {
		f.add("display %q: use none or vnc", s.Display)
	}
}

func (s Spec) checkBoot(f *findings) {
	if s.Kernel == "" && (s.Initrd != "" || s.Append != "") {
		f.add("initrd and append need a kernel")
	}
	checkPath(f, "kernel", s.Kernel)
	checkPath(f, "initrd", s.Initrd)
	if len(s.Append) > 2047 || strings.ContainsFunc(s.Append, unicode.IsControl) {
		f.add("append: at most 2047 bytes on one line")
	}
}

func (s Spec) checkProtection(f *findings) {
	p := s.Protection
	if p.ResyncRate != 0 && p.ResyncRate < MiB {
		f.add("protection resync_rate %v: use at least 1M, or 0 for no bound", p.ResyncRate)
	}
	checkpoints := p.Level == ProtectResume || p.Level == ProtectFT
	if (checkpoints || p.IntervalSeconds != 0) && !(p.IntervalSeconds >= 0.01 && p.IntervalSeconds <= 86400) {
		f.add("protection interval_seconds %v: use 0.01 to 86400", p.IntervalSeconds)
	}
	switch p.Level {
	case ProtectNone, ProtectRestart:
	case ProtectResume:
		for _, nic := range s.NICs {
			if nic.Type == NICTap {
				f.add("protection resume: the peer cannot make tap %q, use a bridge", nic.Tap)
			}
		}
	case ProtectFT:
		f.add("protection ft is not available yet, use resume")
	default:
		f.add("protection level %q: use none, restart or resume", p.Level)
	}
}

func (s Spec) checkRestart(f *findings) {
	if s.Isolation != IsolationFreeze && s.Isolation != IsolationStop && s.Isolation != "" {
		f.add("isolation %q: use freeze or stop", s.Isolation)
	}
	r := s.Restart
	switch r.Policy {
	case RestartNever, RestartOnFailure, RestartAlways:
	default:
		f.add("restart policy %q: use never, on-failure or always", r.Policy)
	}
	if r.Attempts < 0 || r.Attempts > 1000 {
		f.add("restart attempts %d: use 1 to 1000", r.Attempts)
	}
	for name, seconds := range map[string]float64{"backoff_seconds": r.BackoffSeconds, "window_seconds": r.WindowSeconds} {
		if !(seconds >= 0 && seconds <= 30*86400) {
			f.add("restart %s %v: use more than 0, at most 30 days", name, seconds)
		}
	}
}

func checkPath(f *findings, field, path string) {
	if path == "" {
		return
	}
	if !filepath.IsAbs(path) || len(path) > 4000 || strings.ContainsFunc(path, unicode.IsControl) {
		f.add("%s %q is not an absolute path", field, path)
	}
}
