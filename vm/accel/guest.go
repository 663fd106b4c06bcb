package accel

import (
	_ "embed"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// guestImage is guest/guest.S, assembled.
//
//go:embed guest/guest.bin
var guestImage []byte

// What the guest writes.
const (
	stageRun  = '.' // once for each chunk of plain instructions
	stageEnd  = 'O' // followed by K and a newline
	wrongMark = '!'

	chunkInstructions = 4_000_000
)

// stages in their order; what the guest does after it wrote the letter.
var stages = []struct {
	letter byte
	doing  string
}{
	{'R', "leaving real mode"},
	{'L', "starting in long mode"},
	{'C', "identifying the CPU, reading its clock and registers, cmpxchg16b, SSE"},
	{'X', "taking exceptions"},
	{stageRun, "running plain kernel instructions"},
	{'P', "taking page faults"},
	{'I', "waiting for the board's timer"},
	{'T', "waiting for the CPU's timer"},
	{'U', "running user mode"},
	{'S', "starting a second CPU"},
}

// progress is what was read from the guest so far.
type progress struct {
	stage  byte // 0: nothing yet
	chunks int  // of plain instructions
	wrong  bool
	ended  bool
}

// take counts one byte in, and reports whether nothing more is to be expected.
func (p *progress) take(b byte) bool {
	switch b {
	case wrongMark:
		p.wrong = true
	case '\n':
		p.ended = p.stage == stageEnd
	case stageRun:
		p.stage = b
		p.chunks++
	case stageEnd:
		p.stage = b
	default:
		for i := range stages {
			if stages[i].letter == b {
				p.stage = b
			}
		}
	}
	return p.wrong || p.ended
}

func (p *progress) doing() string {
	for i := range stages {
		if stages[i].letter == p.stage {
			return stages[i].doing
		}
	}
	if p.stage == stageEnd {
		return "ending"
	}
	return "running the firmware"
}

// guestFile is the image as a file without a name, which nobody has to remove.
func guestFile(image []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("accel-guest", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file for the test guest: %w", err)
	}
	f := os.NewFile(uintptr(fd), "accel-guest")
	if _, err := f.Write(image); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the test guest: %w", err)
	}
	return f, nil
}
