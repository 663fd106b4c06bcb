package nbd

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// QEMU as the client of our server.
func TestQemuAsClient(t *testing.T) {
	disk := &memory{bytes: make([]byte, 16<<20)}
	uri := func(path string) string { return "nbd+unix:///d?socket=" + path }
	path := serve(t, map[string]Export{"d": {Device: disk}, "e": {Device: &memory{bytes: make([]byte, 513)}}})
	out := run(t, "qemu-io", "-f", "raw", "-t", "none", "--discard=unmap",
		"-c", "write -P 0x5a 0 64k", "-c", "write -f -P 0x11 1000448 3584", "-c", "write -z -u 4k 4k",
		"-c", "aio_write -P 0x77 2M 1M", "-c", "aio_write -P 0x78 4M 1M", "-c", "aio_flush", "-c", "discard 8M 1M", "-c", "flush",
		"-c", "read -P 0x5a 0 4k", "-c", "read -P 0 4k 4k", "-c", "read -P 0x77 2M 1M", uri(path))
	if strings.Contains(out, "failed") {
		t.Fatal(out)
	}
	disk.mu.Lock()
	want := make([]byte, 16<<20)
	fill := func(from, to int, b byte) { copy(want[from:to], bytes.Repeat([]byte{b}, to-from)) }
	fill(0, 64<<10, 0x5a)
	fill(4<<10, 8<<10, 0)
	fill(1000448, 1000448+3584, 0x11)
	fill(2<<20, 3<<20, 0x77)
	fill(4<<20, 5<<20, 0x78)
	if !bytes.Equal(disk.bytes, want) || disk.flushes == 0 || disk.zeroes != 1 || disk.trims != 1 {
		t.Errorf("content right: %v, %d flushes, %d zeroes, %d trims", bytes.Equal(disk.bytes, want), disk.flushes, disk.zeroes, disk.trims)
	}
	disk.mu.Unlock()
	file := filepath.Join(t.TempDir(), "copy")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri(path), file)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("qemu-img convert reads something else (%v)", err)
	}
	if list := run(t, "qemu-nbd", "--list", "-k", path); !strings.Contains(list, "exports available: 2") || !strings.Contains(list, "size:  16777216") {
		t.Errorf("qemu-nbd --list: %s", list)
	}
}

// qemuExport serves file with qemu-nbd until the test ends.
func qemuExport(t *testing.T, file string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "q")
	server := exec.Command("qemu-nbd", "--read-only", "--persistent", "--shared=8", "-f", "raw", "-x", "ex", "-k", socket, file)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	waitFor(t, func() bool { return listens(socket) })
	return socket
}

// listens asks the kernel, for the server serves one client and a try would be
// that one. The name is there before the socket listens.
func listens(socket string) bool {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 8 && fields[7] == socket && fields[3] == "00010000" {
			return true
		}
	}
	return false
}

// QEMU as the server of our client: a sparse file, read by many at once.
func TestQemuAsServer(t *testing.T) {
	const size = 64<<20 + 512
	want := make([]byte, size)
	copy(want[1<<20:], pattern(3<<20, 9))
	copy(want[40<<20:], pattern(100<<10, 3))
	copy(want[size-700:], pattern(700, 4))
	file := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][2]int{{1 << 20, 3 << 20}, {40 << 20, 100 << 10}, {size - 700, 700}} {
		if _, err := f.WriteAt(want[part[0]:part[0]+part[1]], int64(part[0])); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := Dial(ctx, qemuExport(t, file), "ex")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if client.Size() != size || !client.structured || !client.hasMeta {
		t.Fatalf("size %d, structured %v, base:allocation %v", client.Size(), client.structured, client.hasMeta)
	}
	var readers sync.WaitGroup
	for seed := range uint64(8) {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			got := make([]byte, 2<<20)
			for range 12 {
				off := random.IntN(size - len(got))
				copy(got, bytes.Repeat([]byte{0xee}, len(got))) // holes must be written too
				if _, err := client.ReadAt(got, int64(off)); err != nil || !bytes.Equal(got, want[off:off+len(got)]) {
					t.Errorf("read at %d: content wrong or %v", off, err)
					return
				}
			}
		})
	}
	readers.Wait()
	checkExtents(t, client, want)
	client.Close()
	if _, err := client.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("read after Close succeeded")
	}
}

// checkExtents walks the disk: what is said to be zero is, and most of the
// holes are found.
func checkExtents(t *testing.T, client *Client, want []byte) {
	t.Helper()
	var at, zero int64
	for at < client.Size() {
		extents, err := client.Extents(at, client.Size()-at)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range extents {
			end := min(at+e.Length, client.Size())
			if e.Zero {
				zero += end - at
				if len(bytes.Trim(want[at:end], "\x00")) != 0 {
					t.Fatalf("data at %d to %d is called zero", at, end)
				}
			}
			at = end
		}
	}
	if zero < 55<<20 {
		t.Errorf("only %d bytes are called zero", zero)
	}
}
