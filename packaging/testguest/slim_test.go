package testguest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"strings"
	"testing"
)

// elfOf is an ELF file of what the tests need: sections with their addresses and
// names, all in one segment that loads them, and notes that are in it too.
func elfOf(t *testing.T) []byte {
	t.Helper()
	sections := []struct {
		name, content string
		at            uint64 // in the file, and behind base in memory
		kind          elf.SectionType
	}{
		{"", "", 0, elf.SHT_NULL},
		{".text", strings.Repeat("code", 1000), 0x1000, elf.SHT_PROGBITS},
		{".notes", "where it begins", 0x3000, elf.SHT_NOTE},
		{".BTF", strings.Repeat("types", 1000), 0x4000, elf.SHT_PROGBITS},
		{".bss", strings.Repeat("\x00", 100), 0x6000, elf.SHT_NOBITS},
		{".shstrtab", "\x00.text\x00.notes\x00.BTF\x00.bss\x00.shstrtab\x00", 0x7000, elf.SHT_STRTAB},
	}
	const base, end, heads = 0x1000000, 0x7000, 0x8000
	file := make([]byte, heads)
	write := func(at int, v any) {
		var out bytes.Buffer
		if err := binary.Write(&out, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
		file = append(file[:at], append(out.Bytes(), file[min(len(file), at+out.Len()):]...)...)
	}
	write(0, elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}, Type: uint16(elf.ET_EXEC),
		Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Entry: base, Phoff: 64, Phnum: 2, Phentsize: 56, Ehsize: 64,
		Shoff: heads, Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1),
	})
	write(64, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: 0x1000, Vaddr: 0xffffffff81000000, Paddr: base, Filesz: end - 0x1000, Memsz: end - 0x1000, Align: 0x1000})
	write(64+56, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 0x3000, Vaddr: 0xffffffff81002000, Paddr: base + 0x2000, Filesz: 15, Memsz: 15, Align: 4})
	names := sections[len(sections)-1].content
	for i, s := range sections {
		head := elf.Section64{Name: uint32(max(0, strings.Index(names, s.name+"\x00"))), Type: uint32(s.kind), Off: s.at, Size: uint64(len(s.content)), Addralign: 1}
		if s.kind != elf.SHT_NULL && s.kind != elf.SHT_STRTAB {
			head.Flags, head.Addr = uint64(elf.SHF_ALLOC), 0xffffffff81000000+s.at-0x1000
		}
		if s.kind != elf.SHT_NOBITS {
			copy(file[s.at:], s.content)
		}
		write(heads+64*i, head)
	}
	return file
}

// TestSlim: what a kernel needs is where it was, what it does not is gone.
func TestSlim(t *testing.T) {
	kernel := elfOf(t)
	slimmed, err := slim(kernel)
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(bytes.NewReader(slimmed))
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]elf.ProgHeader{}
	for _, p := range file.Progs {
		content, err := io.ReadAll(p.Open())
		if err != nil {
			t.Fatal(err)
		}
		at[p.Type.String()+" "+string(content[:4])] = p.ProgHeader
	}
	if len(file.Progs) != 3 || file.Entry != 0x1000000 {
		t.Errorf("entry %x, %d segments: %+v", file.Entry, len(file.Progs), at)
	}
	for name, want := range map[string]elf.ProgHeader{
		"PT_LOAD code": {Paddr: 0x1000000, Vaddr: 0xffffffff81000000, Filesz: 4000, Memsz: 4000},
		"PT_LOAD wher": {Paddr: 0x1002000, Vaddr: 0xffffffff81002000, Filesz: 15, Memsz: 15},
		"PT_NOTE wher": {Paddr: 0x1002000, Vaddr: 0xffffffff81002000, Filesz: 15, Memsz: 15},
	} {
		if p := at[name]; p.Paddr != want.Paddr || p.Vaddr != want.Vaddr || p.Filesz != want.Filesz || p.Memsz != want.Memsz {
			t.Errorf("%s: %+v, want %+v", name, p, want)
		}
	}
	if _, err := slim([]byte("#!/bin/sh")); err == nil {
		t.Error("a script is a kernel")
	}
}

// TestSlimModule: the signature goes, the types are not found, nothing else changes.
func TestSlimModule(t *testing.T) {
	module := elfOf(t)
	signature := "a signature" + string(make([]byte, 8)) + "\x00\x00\x00\x0b" + string(signed)
	slimmed, err := slimModule(append(bytes.Clone(module), signature...))
	if err != nil {
		t.Fatal(err)
	}
	if want := bytes.Replace(module, []byte("\x00.BTF\x00"), []byte("\x00-BTF\x00"), 1); !bytes.Equal(slimmed, want) {
		t.Errorf("%d bytes, want %d", len(slimmed), len(want))
	}
	short := "a signature" + string(make([]byte, 8)) + "\x00\x10\x00\x00" + string(signed)
	if _, err := slimModule([]byte(short)); err == nil {
		t.Error("a signature that is longer than all of it is cut off")
	}
}
