package testguest

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// typesSection describes a kernel's or module's types for BPF, which the guest has no
// use for and parses when it boots.
const typesSection = ".BTF"

// unused are sections of a kernel that nothing reads in the guest.
var unused = []string{typesSection, ".init.scratch"}

// slim is a kernel with nothing but the sections that have a content: a third of
// Debian's is padding, zeroes the kernel sets to zero itself, and types. It is
// loaded into the guest at each boot, and copied to the peer.
func slim(kernel []byte) ([]byte, error) {
	in, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return nil, fmt.Errorf("what it holds is no ELF file: %w", err)
	}
	progs, err := loaded(in)
	if err != nil {
		return nil, err
	}
	const page = 4096
	var header elf.Header64
	headerSize, progSize := binary.Size(header), binary.Size(elf.Prog64{})
	if err := binary.Read(bytes.NewReader(kernel), binary.LittleEndian, &header); err != nil {
		return nil, err
	}
	header.Phoff, header.Phnum, header.Shoff, header.Shnum, header.Shstrndx = uint64(headerSize), uint16(len(progs)), 0, 0, 0
	at := uint64(headerSize + progSize*len(progs))
	var heads, body bytes.Buffer
	if err := binary.Write(&heads, binary.LittleEndian, header); err != nil {
		return nil, err
	}
	for _, p := range progs {
		gap := -at % page
		body.Write(make([]byte, gap))
		at += gap
		head := elf.Prog64{Type: uint32(p.Type), Flags: uint32(p.Flags), Off: at, Vaddr: p.Vaddr, Paddr: p.Paddr, Filesz: p.Filesz, Memsz: p.Filesz, Align: p.Align}
		if err := binary.Write(&heads, binary.LittleEndian, head); err != nil {
			return nil, err
		}
		if _, err := io.Copy(&body, p.ReaderAt.(io.Reader)); err != nil {
			return nil, err
		}
		at += p.Filesz
	}
	return append(heads.Bytes(), body.Bytes()...), nil
}

// loaded are the pieces of a kernel that have to be in memory when it begins, and
// its notes, of which one tells where it does.
func loaded(in *elf.File) (progs []*elf.Prog, err error) {
	for _, p := range in.Progs {
		if p.Type == elf.PT_NOTE {
			progs = append(progs, &elf.Prog{ProgHeader: p.ProgHeader, ReaderAt: io.NewSectionReader(p, 0, int64(p.Filesz))})
		}
		if p.Type != elf.PT_LOAD {
			continue
		}
		for _, s := range in.Sections {
			within := s.Offset >= p.Off && s.Offset+s.Size <= p.Off+p.Filesz
			if s.Flags&elf.SHF_ALLOC == 0 || s.Type == elf.SHT_NOBITS || s.Size == 0 || !within || slices.Contains(unused, s.Name) {
				continue
			}
			head := p.ProgHeader
			head.Vaddr, head.Paddr, head.Filesz, head.Align = s.Addr, p.Paddr+s.Offset-p.Off, s.Size, 1
			progs = append(progs, &elf.Prog{ProgHeader: head, ReaderAt: io.NewSectionReader(s, 0, int64(s.Size))})
		}
	}
	slices.SortStableFunc(progs, func(a, b *elf.Prog) int { return cmp.Compare(a.Paddr, b.Paddr) })
	if len(progs) == 0 {
		return nil, errors.New("the kernel loads nothing")
	}
	return progs, nil
}

// signed is behind the signature of a module, and the signature behind the module.
var signed = []byte("~Module signature appended~\n")

// slimModule is a module without its types and its signature: the guest would hash
// the module and then find that it does not have the key.
func slimModule(module []byte) ([]byte, error) {
	const info = 12 // bytes of struct module_signature, the length last
	if rest, ok := bytes.CutSuffix(module, signed); ok && len(rest) > info {
		length := int(binary.BigEndian.Uint32(rest[len(rest)-4:]))
		if length > len(rest)-info {
			return nil, errors.New("its signature is longer than itself")
		}
		module = rest[:len(rest)-info-length]
	}
	in, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	module = bytes.Clone(module)
	for _, s := range in.Sections {
		if s.Type != elf.SHT_STRTAB || s.Name != ".shstrtab" {
			continue
		}
		// The kernel knows the section by its name.
		names := module[s.Offset : s.Offset+s.Size]
		if at := bytes.Index(names, []byte("\x00"+typesSection+"\x00")); at >= 0 {
			names[at+1] = '-'
		}
	}
	return module, nil
}
