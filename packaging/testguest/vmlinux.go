package testguest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
)

// packed are the ways a kernel is packed: how it begins, who unpacks it from
// standard input, and how many bytes of the kernel's own are behind it.
var packed = []struct {
	magic   string
	program []string
	behind  int
}{
	{"\x02\x21\x4c\x18", []string{"lz4", "-d", "-c"}, 4},
	{"\xfd7zXZ\x00", []string{"xz", "-d", "-c"}, 4},
	{"\x1f\x8b", []string{"gzip", "-d", "-c"}, 0},
}

// unpackKernel writes the kernel that a bzImage holds to path: the guest would
// unpack it under emulation, a fifth of its way up. QEMU starts it by its PVH
// entry. One that is packed in another way is taken as it is.
func unpackKernel(ctx context.Context, bzImage, path string) error {
	image, err := os.ReadFile(bzImage)
	if err != nil {
		return err
	}
	payload, err := payloadOf(image)
	if err != nil {
		return fmt.Errorf("unpack kernel %s: %w", bzImage, err)
	}
	for _, p := range packed {
		if !bytes.HasPrefix(payload, []byte(p.magic)) {
			continue
		}
		cmd := exec.CommandContext(ctx, p.program[0], p.program[1:]...)
		cmd.Stdin = bytes.NewReader(payload[:len(payload)-p.behind])
		kernel, err := cmd.Output()
		if err == nil {
			kernel, err = slim(kernel)
		}
		if err != nil {
			return fmt.Errorf("unpack kernel %s with %s: %w", bzImage, p.program[0], err)
		}
		return os.WriteFile(path, kernel, 0o644)
	}
	return os.WriteFile(path, image, 0o644)
}

// payloadOf finds the packed kernel, as the kernel's Documentation/arch/x86/boot.rst
// says since protocol 2.08.
func payloadOf(image []byte) ([]byte, error) {
	const sectors, signature, version, offset = 0x1f1, 0x202, 0x206, 0x248
	if len(image) < offset+8 || !slices.Equal(image[signature:signature+4], []byte("HdrS")) || binary.LittleEndian.Uint16(image[version:]) < 0x208 {
		return nil, errors.New("it is no bzImage")
	}
	setup := uint64(image[sectors])
	if setup == 0 {
		setup = 4
	}
	from := (setup+1)*512 + uint64(binary.LittleEndian.Uint32(image[offset:]))
	length := uint64(binary.LittleEndian.Uint32(image[offset+4:]))
	if length < 8 || from+length > uint64(len(image)) {
		return nil, errors.New("its payload is not within the file")
	}
	return image[from : from+length], nil
}
