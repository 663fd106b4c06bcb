package testguest

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bzImageOf is as much of a bzImage as there is to find a payload by.
func bzImageOf(payload []byte) []byte {
	image := make([]byte, 3*512)
	image[0x1f1] = 2
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(image[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(image[0x248:], 16)
	binary.LittleEndian.PutUint32(image[0x24c:], uint32(len(payload)))
	return append(append(image, make([]byte, 16)...), payload...)
}

// TestUnpackKernel: however a kernel is packed, it comes out, with what it needs; what is
// packed in an unknown way is taken whole, and what is none is refused.
func TestUnpackKernel(t *testing.T) {
	kernel := elfOf(t)
	slimmed, err := slim(kernel)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(behind string, name string, args ...string) []byte {
		cmd := exec.Command(name, args...)
		cmd.Stdin = bytes.NewReader(kernel)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return bzImageOf(append(out, behind...))
	}
	unknown, beyond := bzImageOf([]byte("not known to us")), bzImageOf(nil)
	binary.LittleEndian.PutUint32(beyond[0x24c:], 1<<31)
	for name, c := range map[string]struct {
		image, want []byte
		failure     string
	}{
		"lz4":     {image: pack("size", "lz4", "-l", "-c"), want: slimmed},
		"xz":      {image: pack("size", "xz", "-c"), want: slimmed},
		"gzip":    {image: pack("", "gzip", "-c"), want: slimmed},
		"unknown": {image: unknown, want: unknown},
		"cut":     {image: bzImageOf([]byte("\x02\x21\x4c\x18\x00\x00\x01\x00cut")), failure: "with lz4"},
		"beyond":  {image: beyond, failure: "not within the file"},
		"other":   {image: []byte("#!/bin/sh"), failure: "no bzImage"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := filepath.Join(dir, "bzImage"), filepath.Join(dir, "kernel")
			if err := os.WriteFile(from, c.image, 0o644); err != nil {
				t.Fatal(err)
			}
			err := unpackKernel(t.Context(), from, to)
			if c.failure != "" {
				if err == nil || !strings.Contains(err.Error(), c.failure) {
					t.Fatalf("%v, want %s", err, c.failure)
				}
				return
			}
			if got, readErr := os.ReadFile(to); err != nil || readErr != nil || !bytes.Equal(got, c.want) {
				t.Fatalf("%d bytes, want %d: %v, %v", len(got), len(c.want), err, readErr)
			}
		})
	}
}
