package trial

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/uuid"

	"vmctl/vm"
	"vmctl/vm/qmp"
)

// ErrRefused: QEMU does not load the state, or has another CPU. The message
// says why, for people.
var ErrRefused = errors.New("the state would not load")

// State is what a trial machine was saved as.
type State struct {
	Devices []byte `msgpack:"devices"`
	CPU     []Word `msgpack:"cpu"`
}

// Word is one register of CPUID.
type Word struct {
	EAX      uint32  `json:"cpuid-input-eax" msgpack:"eax"`
	ECX      *uint32 `json:"cpuid-input-ecx,omitempty" msgpack:"ecx"`
	Register string  `json:"cpuid-register" msgpack:"register"`
	Features uint32  `json:"features" msgpack:"features"`
}

// Place is where trials are made: a short directory for sockets, and one on
// tmpfs for memory.
type Place struct {
	Host            vm.Host
	Runtime, RAMDir string
}

// Shape is what of a spec a trial is about, equal for guests of the same virtual
// hardware: one proof is good for all.
func Shape(s vm.Spec) vm.Spec {
	shape := vm.Spec{
		Name: "trial", Machine: s.Machine, CPU: s.CPU, CPUs: s.CPUs, Memory: s.Memory, Accel: s.Accel, Display: s.Display,
		PVPanic: s.PVPanic, RNG: s.RNG, GuestAgent: s.GuestAgent,
	}
	for i, d := range s.Disks {
		shape.Disks = append(shape.Disks, vm.Disk{Name: fmt.Sprintf("disk%d", i), Format: vm.FormatRaw, Preallocate: d.Preallocate})
	}
	for i := range s.NICs {
		shape.NICs = append(shape.NICs, vm.NIC{Type: vm.NICUser, MAC: fmt.Sprintf("52:54:00:00:00:%02x", i)})
	}
	return shape
}

// Key tells shapes apart.
func Key(shape vm.Spec) string {
	data, err := json.Marshal(shape)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// Save makes the machine of a shape and saves it.
func Save(ctx context.Context, p Place, shape vm.Spec) (state State, err error) {
	err = with(ctx, p, shape, vm.Options{Paused: true}, func(ctx context.Context, m *machine) error {
		if state.CPU, err = m.cpu(ctx); err != nil {
			return err
		}
		file, err := qmp.NewStateFile(ctx, m.monitor)
		if err != nil {
			return err
		}
		state.Devices, err = file.Save(ctx, nil)
		return errors.Join(err, file.Close(ctx))
	})
	if err != nil {
		return State{}, fmt.Errorf("save a trial state: %w", err)
	}
	return state, nil
}

// Load loads what Save gave elsewhere. The error is an ErrRefused if QEMU or its
// CPU is the reason, and another one if nothing was found out.
func Load(ctx context.Context, p Place, shape vm.Spec, state State) error {
	err := with(ctx, p, shape, vm.Options{Incoming: true}, func(ctx context.Context, m *machine) error {
		cpu, err := m.cpu(ctx)
		if err != nil {
			return err
		}
		if err := Compare(state.CPU, cpu); err != nil {
			return err
		}
		if err := qmp.LoadDeviceState(ctx, m.monitor, bytes.NewReader(state.Devices)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("%w: %w%s", ErrRefused, err, m.words())
		} else if err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load a trial state: %w", err)
	}
	return nil
}

// Compare says whether a guest that knows one CPU can go on on another: all that
// it has seen must be there.
func Compare(from, to []Word) error {
	type register struct {
		eax, ecx uint32
		name     string
	}
	key := func(w Word) register {
		r := register{eax: w.EAX, name: w.Register}
		if w.ECX != nil {
			r.ecx = *w.ECX + 1
		}
		return r
	}
	have := map[register]uint32{}
	for _, w := range to {
		have[key(w)] = w.Features
	}
	for _, w := range from {
		if missing := w.Features &^ have[key(w)]; missing != 0 {
			return fmt.Errorf("%w: the CPU lacks features 0x%x of CPUID leaf 0x%x, register %s; give the guest a CPU model that both nodes have", ErrRefused, missing, w.EAX, w.Register)
		}
	}
	return nil
}

// cpu asks QEMU which features the guest's first CPU has.
func (m *machine) cpu(ctx context.Context) ([]Word, error) {
	var cpus []struct {
		Path string `json:"qom-path"`
	}
	if err := m.monitor.Execute(ctx, "query-cpus-fast", nil, &cpus); err != nil {
		return nil, err
	}
	if len(cpus) == 0 {
		return nil, errors.New("QEMU shows no CPU")
	}
	var raw json.RawMessage
	if err := m.monitor.Execute(ctx, "qom-get", map[string]any{"path": cpus[0].Path, "property": "feature-words"}, &raw); err != nil {
		return nil, err
	}
	var words []Word
	return words, json.Unmarshal(raw, &words)
}

// Identity tells one QEMU from another: the content of its program.
func Identity(program string) (string, error) {
	file, err := os.Open(program)
	if err != nil {
		return "", fmt.Errorf("read QEMU's program: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("read QEMU's program: %w", err)
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:16]), nil
}

func newID() string { return uuid.NewString() }
