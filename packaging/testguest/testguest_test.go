package testguest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vmctl/packaging/testguest/work"
)

// TestGuest takes the guest through its life, as an outsider sees it: three boots,
// which are what it costs.
func TestGuest(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 2)
	plain := *m
	socket := m.withAgent()
	started := time.Now()
	first := m.boot()
	t.Logf("answers after %v", time.Since(started).Round(time.Millisecond))
	if len(first.Token) != 32 || first.Boots != 1 || first.Disk.Disks != 2 {
		t.Errorf("first answer: %+v", first)
	}
	later := m.reach(first.Counter + 20)
	if later.Token != first.Token || later.Chain == first.Chain || later.Disk.Counter == 0 || later.Memory.Written == 0 || later.Clock.IsZero() {
		t.Errorf("later answer: %+v, first: %+v", later, first)
	}
	t.Run("echo", func(t *testing.T) { echo(t, m, first.Token) })
	t.Run("records", func(t *testing.T) { records(t, m, first.Token) })
	t.Run("agent", func(t *testing.T) { agent(t, m, socket) })

	m.command("system_powerdown")
	m.event("SHUTDOWN")
	m.ended()
	if out, err := exec.Command("e2fsck", "-fn", m.disks[0]).CombinedOutput(); err != nil {
		t.Errorf("the file system was not unmounted: %v: %s", err, out)
	}
	report, err := VerifyDisk(t.Context(), m.disks[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	second := secondLog(t, m)
	if second.Last.Token.String() != first.Token || second.Last.Counter < later.Disk.Counter {
		t.Errorf("second disk ends in %+v, the guest had said %+v", second.Last, later.Disk)
	}

	m.append, m.image, m.more = plain.append, plain.image, plain.more
	again := m.boot()
	if again.Token == first.Token || again.Boots != 2 || again.Disk.Records < second.Last.Sequence {
		t.Errorf("second boot: %+v", again)
	}
	t.Run("older disk", func(t *testing.T) { olderDisk(t, m) })
	if _, err := m.get("/reboot"); err != nil {
		t.Fatal(err)
	}
	m.event("RESET")
	third := work.Status{}
	m.await("the guest answers again", func() (err error) { third, err = m.ask(); return err })
	if third.Token == again.Token || third.Boots != 3 || third.Broken {
		t.Errorf("after a reboot: %+v", third)
	}
	m.reach(third.Counter + 5)
	if _, err := m.get("/panic"); err != nil {
		t.Fatal(err)
	}
	m.event("GUEST_PANICKED")
	m.command("quit")
	m.ended()
	if _, err := VerifyDisk(t.Context(), m.disks[0]); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

// echo asks over UDP, which may lose a datagram.
func echo(t *testing.T, m *machine, token string) {
	conn, err := net.Dial("udp", m.echo)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m.await("an echo", func() error {
		if _, err := conn.Write([]byte("?")); err != nil {
			return err
		}
		buffer := make([]byte, 2048)
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		var status work.Status
		if err := json.Unmarshal(buffer[:n], &status); err != nil || status.Token != token || status.Counter == 0 {
			t.Errorf("echo %s, %v", buffer[:n], err)
		}
		return nil
	})
}

// records reads what the guest tells at every step: each step once, in order.
func records(t *testing.T, m *machine, token string) {
	var last work.Datagram
	_ = m.records.SetReadDeadline(time.Now().Add(patience))
	for range 30 {
		buffer := make([]byte, 2048)
		n, err := m.records.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		var d work.Datagram
		if err := json.Unmarshal(buffer[:n], &d); err != nil || d.Token != token || d.Broken || d.Clock <= last.Clock {
			t.Fatalf("record %s, %v", buffer[:n], err)
		}
		if last.Counter != 0 && d.Counter != last.Counter+1 {
			t.Errorf("record of step %d after step %d", d.Counter, last.Counter)
		}
		last = d
	}
}

func secondLog(t *testing.T, m *machine) work.History {
	t.Helper()
	content, err := os.ReadFile(m.disks[1])
	if err != nil {
		t.Fatal(err)
	}
	history, err := work.ReadHistory(content[:work.LogSize])
	if err != nil {
		t.Fatalf("second disk: %v", err)
	}
	return history
}

// olderDisk changes the disk under a running guest, as a bad failover would: it must
// say so, and keep on saying it. In the end the disk is as it was.
func olderDisk(t *testing.T, m *machine) {
	m.reach(20)
	older, err := os.ReadFile(m.disks[1])
	if err != nil {
		t.Fatal(err)
	}
	now, err := m.ask() // it may be far beyond what was waited for
	if err != nil {
		t.Fatal(err)
	}
	m.reach(now.Counter + 20)
	m.stop()
	newer, err := os.ReadFile(m.disks[1])
	if err = errors.Join(err, os.WriteFile(m.disks[1], older, 0o644)); err != nil {
		t.Fatal(err)
	}
	m.command("cont")
	var status work.Status
	m.await("the guest notices", func() (err error) {
		if status, err = m.ask(); err == nil && !status.Broken {
			err = fmt.Errorf("it says that all is well: %+v", status)
		}
		return err
	})
	if !strings.Contains(status.Reason, "vdb and memory are of different instants") {
		t.Errorf("reason: %s", status.Reason)
	}
	// Two threads of the guest tell it; the console may be the later one.
	m.await("the console says so", func() error {
		console, err := os.ReadFile(m.serial())
		if err == nil && !bytes.Contains(console, []byte("BROKEN")) {
			err = errors.New("it does not yet")
		}
		return err
	})
	m.stop()
	if err := os.WriteFile(m.disks[1], newer, 0o644); err != nil {
		t.Fatal(err)
	}
	m.command("cont")
}

// TestVerifyDiskRefuses spoils a disk in the ways a bad replica would be.
func TestVerifyDiskRefuses(t *testing.T) {
	dir := t.TempDir()
	log := make([]byte, work.LogSize)
	token := work.NewToken()
	memory := work.NewMemory(token, work.Aligned(work.PageSize))
	chain := work.Start(work.Chain{}, token)
	for i := range uint64(20) {
		r := work.Record{Sequence: i + 1, Boot: 1, Every: 1, Counter: i + 1, Token: token, Pages: 1, Previous: chain, Sample: memory.Sample(chain)}
		chain = work.Link(chain, r.Counter, r.Sample)
		r.Chain = chain
		r.Append(log[i*work.RecordSize : i*work.RecordSize])
	}
	disk := func(name string, spoil func(log []byte)) string {
		files := filepath.Join(dir, name+".d")
		image := filepath.Join(dir, name)
		content := bytes.Clone(log)
		spoil(content)
		for _, err := range []error{
			os.Mkdir(files, 0o755), os.WriteFile(filepath.Join(files, LogName), content, 0o644), os.WriteFile(image, nil, 0o644),
			os.Truncate(image, diskSize), run(t.Context(), "", nil, "mkfs.ext4", "-q", "-F", "-d", files, image),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return image
	}
	good := disk("good", func([]byte) {})
	if report, err := VerifyDisk(t.Context(), good); err != nil || !strings.Contains(report, "20 records unbroken") {
		t.Fatalf("a good disk: %q, %v", report, err)
	}
	spoiled := map[string]string{
		"flipped": disk("flipped", func(log []byte) { log[7*work.RecordSize+70] ^= 8 }),
		"skipped": disk("skipped", func(log []byte) { clear(log[7*work.RecordSize : 8*work.RecordSize]) }),
		"beyond":  disk("beyond", func(log []byte) { log[25*work.RecordSize] = 1 }),
		"empty":   disk("empty", func(log []byte) { clear(log) }),
	}
	for name, image := range spoiled {
		if report, err := VerifyDisk(t.Context(), image); err == nil {
			t.Errorf("%s: passes: %s", name, report)
		}
	}
	// A file system that was damaged: the root directory's inode is gone.
	if err := run(t.Context(), "", nil, "debugfs", "-w", "-R", "clri /", good); err != nil {
		t.Fatal(err)
	}
	if report, err := VerifyDisk(t.Context(), good); err == nil {
		t.Errorf("a damaged file system passes: %s", report)
	}
}

// TestBuildTogether runs builders at once, over what a killed one left behind.
func TestBuildTogether(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "work-123", "kernel")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	// A copy of the image in the cache: this is not a test of the download.
	kept, err := Build(t.Context(), cache(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), "", nil, "cp", "-a", "--sparse=always", filepath.Dir(kept.Kernel), dir); err != nil {
		t.Fatal(err)
	}
	images := make([]Image, 3)
	var builders sync.WaitGroup
	for i := range images {
		builders.Go(func() {
			var err error
			if images[i], err = Build(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
	}
	builders.Wait()
	for _, image := range images {
		if image != images[0] || filepath.Base(filepath.Dir(image.Kernel)) != filepath.Base(filepath.Dir(kept.Kernel)) {
			t.Errorf("images differ: %v, %v", image, images[0])
		}
		for _, path := range []string{image.Kernel, image.Initrd, image.DiskBase} {
			if info, err := os.Stat(path); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}
