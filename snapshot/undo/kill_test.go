package undo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"vmctl/snapshot/shmtest"
)

// killedDisk is the size of the disk that a killed process writes.
const killedDisk = 4 << 20

// killVariable makes the test binary the process that gets killed; its value is
// the path of the disk.
const killVariable = "UNDO_TEST_WRITER"

// TestMain puts the tests' directories on tmpfs, where an fsync costs nothing:
// what a kill leaves is the same there.
func TestMain(m *testing.M) {
	if path := os.Getenv(killVariable); path != "" {
		writeUntilKilled(path)
		return
	}
	os.Exit(shmtest.Main(m))
}

// change is the n-th write of a seed; everyone computes the same.
func change(seed, n uint64) (off int64, p []byte) {
	random := rand.New(rand.NewPCG(seed, n))
	length := []int{512, 4096, 65536, 1 << 20}[random.IntN(4)]
	p = make([]byte, length)
	for i := 0; i < length; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], seed<<32|n<<8|uint64(i&0xff))
	}
	return random.Int64N(int64(killedDisk-length)/512) * 512, p
}

// changesPerMark is how many writes there are between two markers.
const changesPerMark = 20

// writeUntilKilled sets marker k after k*changesPerMark writes, says so, and
// never ends on its own. Older markers are dropped, two are kept.
func writeUntilKilled(path string) {
	seed, _ := strconv.ParseUint(os.Getenv("UNDO_TEST_SEED"), 10, 64)
	d, err := Open(path, killedDisk)
	for n := uint64(0); err == nil; n++ {
		if n%changesPerMark == 0 {
			mark := n / changesPerMark
			if err = d.Mark(mark); err != nil {
				break
			}
			fmt.Println(mark)
			if mark > 1 {
				err = d.Drop(mark - 1)
			}
		}
		off, p := change(seed, n)
		if n%7 == 3 {
			err = d.Zero(off, int64(len(p)))
		} else if err == nil {
			_, err = d.WriteAt(p, off)
		}
	}
	fmt.Println("error:", err)
}

// imageAt is what the disk had at a marker.
func imageAt(seed, mark uint64) []byte {
	image := make([]byte, killedDisk)
	for n := range mark * changesPerMark {
		off, p := change(seed, n)
		if n%7 == 3 {
			clear(p)
		}
		copy(image[off:], p)
	}
	return image
}

// A process that writes is killed at a random moment; the disk, opened again,
// rolls back to its last marker exactly, and then to the one before.
func TestKilledWriterRollsBackExactly(t *testing.T) {
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for seed := range uint64(8) {
		path := filepath.Join(t.TempDir(), "disk")
		writer := exec.Command(os.Args[0])
		writer.Env = append(os.Environ(), killVariable+"="+path, fmt.Sprintf("UNDO_TEST_SEED=%d", seed))
		out, err := writer.StdoutPipe()
		must(t, err)
		must(t, writer.Start())
		lines := bufio.NewReader(out)
		_, err = lines.ReadString('\n') // marker 0 is set
		must(t, err)
		time.Sleep(time.Duration(random.IntN(60_000)) * time.Microsecond)
		must(t, writer.Process.Kill())
		said, err := io.ReadAll(lines)
		must(t, err)
		_ = writer.Wait()
		if bytes.Contains(said, []byte("error")) {
			t.Fatalf("seed %d: the writer failed: %s", seed, said)
		}
		d := mustOpen(t, path, killedDisk)
		marks := d.Marks()
		if len(marks) == 0 || len(marks) > 3 {
			t.Fatalf("seed %d: markers %v", seed, marks)
		}
		for i := len(marks) - 1; i >= 0; i-- {
			must(t, d.Rollback(marks[i]))
			if !bytes.Equal(content(t, d), imageAt(seed, marks[i])) {
				t.Fatalf("seed %d: rollback to %d of %v is not exact", seed, marks[i], marks)
			}
		}
		must(t, d.Close())
	}
}

func FuzzParseHeader(f *testing.F) {
	var head [headerSize]byte
	putHeader(head[:], magicData, 3, 4096, 3, []byte("old"))
	f.Add(append(head[:], "old"...))
	putHeader(head[:], magicZero, 3, 0, 1<<20, nil)
	f.Add(head[:])
	f.Fuzz(func(t *testing.T, raw []byte) {
		const size = 1 << 30
		if len(raw) < headerSize {
			return
		}
		r, err := parseHeader(raw, 3, size, 0)
		if err == nil && (r.offset < 0 || r.length <= 0 || r.offset+r.length > size || r.next() < headerSize || r.next() > headerSize+maxRecord) {
			t.Fatalf("%+v is accepted", r)
		}
	})
}

// FuzzSegment opens a disk on any segment: it must open, and a rollback either
// refuses or works.
func FuzzSegment(f *testing.F) {
	path := filepath.Join(f.TempDir(), "disk")
	d, err := Open(path, 16<<10)
	must(f, err)
	must(f, d.Mark(1))
	_, err = d.WriteAt(bytes.Repeat([]byte{1}, 5000), 1000)
	must(f, err)
	must(f, d.Close())
	log, err := os.ReadFile(segmentPath(path+".undo", 1))
	must(f, err)
	f.Add(log)
	f.Add(log[:headerSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "disk")
		must(t, os.Mkdir(path+".undo", 0o700))
		must(t, os.WriteFile(segmentPath(path+".undo", 1), raw, 0o600))
		d := mustOpen(t, path, 16<<10)
		_, err := d.WriteAt([]byte("x"), 0)
		must(t, err)
		_ = d.Rollback(1)
	})
}
