package replicator

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// MapOptions say where the dirty map of a guest is kept.
type MapOptions struct {
	// Path of the file, best on a tmpfs. Empty: the map dies with the process.
	Path string
	// Instance names the boot of this host and the QEMU whose mirrors fill the map:
	// a map of another one is never used.
	Instance string
	// Load uses the map of an earlier process, if it is whole and of this guest,
	// epoch, instance and disks. Only for a QEMU whose mirrors run since then.
	Load bool
}

// The file has blocks that are written whole: a header, then the bits of each
// disk. Each has its checksum; a block of bits whose checksum is wrong counts as
// all dirty, a header whose is wrong as no map at all.
const (
	blockSize  = 512
	blockWords = (blockSize - 8) / 8 // 4032 chunks, 252 MiB of a disk
	mapMagic   = "vmdirty1"
	mostID     = 64 // bytes of a replica's identity
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// dirtyMap is the file. A nil one keeps nothing. Guarded by Replicator.mu.
type dirtyMap struct {
	file   *os.File
	path   string
	digest [sha256.Size]byte
	base   []int64 // first block of each disk
	blocks int64
	dead   bool // it is no map any more: not to be used by anybody
}

// openMap opens the map of a guest. With load it returns what an earlier process
// left, the words of each disk and the replica they are about; words are nil when
// there is nothing to go by, and the file then says that everything is dirty.
func openMap(o MapOptions, guest string, epoch uint64, disks []Disk) (_ *dirtyMap, words [][]uint64, replica []byte, err error) {
	if o.Path == "" {
		return nil, nil, nil, nil
	}
	m := &dirtyMap{path: o.Path, blocks: 1}
	digest := sha256.New()
	fmt.Fprintf(digest, "%q %d %q", guest, epoch, o.Instance)
	for _, d := range disks {
		fmt.Fprintf(digest, " %q %d", d.Name, d.Size)
		m.base = append(m.base, m.blocks)
		m.blocks += int64((wordsOf(d.Size) + blockWords - 1) / blockWords)
	}
	digest.Sum(m.digest[:0])
	if o.Load {
		if words, replica = m.load(disks); words != nil {
			return m, words, replica, nil
		}
	}
	// Whatever fails from here on: the file of an earlier process must not stay.
	if err := os.Remove(o.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, fmt.Errorf("remove an old dirty map: %w", err)
	}
	if err := m.create(disks); err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("make the dirty map %s: %w", o.Path, err), m.kill())
	}
	return m, nil, nil, nil
}

// load reads the map; nil if it cannot be used.
func (m *dirtyMap) load(disks []Disk) (words [][]uint64, replica []byte) {
	file, err := os.OpenFile(m.path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil
	}
	raw := make([]byte, m.blocks*blockSize)
	info, err := file.Stat()
	if err == nil && info.Size() == int64(len(raw)) {
		_, err = file.ReadAt(raw, 0)
	}
	replica, ok := m.parseHeader(raw[:blockSize])
	if err != nil || !ok {
		file.Close()
		return nil, nil
	}
	m.file = file
	for i, d := range disks {
		all := make([]uint64, wordsOf(d.Size))
		for word := range all {
			block := m.base[i] + int64(word/blockWords)
			at := raw[block*blockSize:][:blockSize]
			if !sealed(at, block) {
				all[word] = ^uint64(0)
				continue
			}
			all[word] = binary.LittleEndian.Uint64(at[8+word%blockWords*8:])
		}
		words = append(words, all)
	}
	return words, replica
}

func (m *dirtyMap) create(disks []Disk) (err error) {
	if m.file, err = os.OpenFile(m.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	// Room for all of it now, so that there is never none later.
	if err := unix.Fallocate(int(m.file.Fd()), 0, 0, m.blocks*blockSize); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for i, d := range disks {
		all := make([]uint64, wordsOf(d.Size))
		for word := range all {
			all[word] = ^uint64(0)
		}
		if err := m.write(i, all, 0, len(all)); err != nil {
			return err
		}
	}
	return m.writeHeader(nil)
}

// keep writes words [from, to) of a disk. When that fails there is no map for the
// next process any more; an error means that there is one, and it lacks these.
func (m *dirtyMap) keep(disk int, dirty []uint64, from, to int) error {
	if m == nil {
		return nil
	}
	if m.dead {
		return m.kill()
	}
	if err := m.write(disk, dirty, from, to); err != nil {
		return m.kill()
	}
	return nil
}

// about says which replica the map is about from now on.
func (m *dirtyMap) about(replica []byte) error {
	if m == nil || m.dead {
		return nil
	}
	if err := m.writeHeader(replica); err != nil {
		return m.kill()
	}
	return nil
}

func (m *dirtyMap) write(disk int, dirty []uint64, from, to int) error {
	for first := from / blockWords * blockWords; first < to; first += blockWords {
		block := m.base[disk] + int64(first/blockWords)
		var raw [blockSize]byte
		for i, word := range dirty[first:min(first+blockWords, len(dirty))] {
			binary.LittleEndian.PutUint64(raw[8+8*i:], word)
		}
		seal(raw[:], block)
		if _, err := m.file.WriteAt(raw[:], block*blockSize); err != nil {
			return err
		}
	}
	return nil
}

// errStays means that a map which lacks something could not be taken away.
var errStays = errors.New("an incomplete dirty map cannot be taken away")

// kill makes the map unusable for a process after this one.
func (m *dirtyMap) kill() error {
	m.dead = true
	if m.file == nil {
		return nil
	}
	var nothing [blockSize]byte
	_, overwritten := m.file.WriteAt(nothing[:], 0)
	removed := os.Remove(m.path)
	if overwritten != nil && removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errStays, removed)
	}
	m.file.Close()
	m.file = nil
	return nil
}

// stays says that there is a map that lacks something.
func (m *dirtyMap) stays() bool { return m != nil && m.dead && m.file != nil }

func (m *dirtyMap) close() {
	if m != nil && m.file != nil {
		m.file.Close()
		m.file = nil
		m.dead = true
	}
}

func (m *dirtyMap) writeHeader(replica []byte) error {
	if len(replica) > mostID {
		replica = nil
	}
	var raw [blockSize]byte
	rest := append(raw[:8], mapMagic...)
	rest = append(rest, m.digest[:]...)
	rest = append(rest, byte(len(replica)))
	_ = append(rest, replica...)
	seal(raw[:], 0)
	_, err := m.file.WriteAt(raw[:], 0)
	return err
}

func (m *dirtyMap) parseHeader(raw []byte) (replica []byte, ok bool) {
	want := append([]byte(mapMagic), m.digest[:]...)
	if !sealed(raw, 0) || !bytes.Equal(raw[8:8+len(want)], want) {
		return nil, false
	}
	rest := raw[8+len(want):]
	if int(rest[0]) > mostID {
		return nil, false
	}
	return bytes.Clone(rest[1 : 1+rest[0]]), true
}

// seal puts the checksum of a block, and its place, in front of it.
func seal(raw []byte, block int64) {
	binary.LittleEndian.PutUint32(raw[4:], uint32(block))
	binary.LittleEndian.PutUint32(raw, crc32.Checksum(raw[4:], castagnoli))
}

func sealed(raw []byte, block int64) bool {
	return binary.LittleEndian.Uint32(raw) == crc32.Checksum(raw[4:], castagnoli) && binary.LittleEndian.Uint32(raw[4:]) == uint32(block)
}
