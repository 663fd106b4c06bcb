package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"vmctl/node/wire"
	"vmctl/snapshot/memory"

	"github.com/vmihailenco/msgpack/v5"
)

func TestCloseEndsItsReceivers(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	r := mustOpen(t, cfg)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	src := newSource(t, 1, 3, cfg.Disks.(testDisks))
	_, first := src.attach(r)
	_, second := dialReady(t, r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, done := range []<-chan error{first, second} {
		if err := <-done; err == nil {
			t.Error("a stream was cut, its receiver says nothing")
		}
	}
	if _, err := r.TakeOver(t.Context(), 9); !errors.Is(err, ErrClosed) {
		t.Errorf("takeover of a closed replica: %v", err)
	}
	_, done := dial(r)
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("stream to a closed replica: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func dialReady(t *testing.T, r *Replica) (*link, <-chan error) {
	t.Helper()
	l, done := dial(r)
	if kind, _, err := l.Receive(); err != nil || kind != KindReady {
		t.Fatalf("kind %d, %v", kind, err)
	}
	return l, done
}

// A sender that comes back while its old stream is still open wins; what the
// old one had staged is refused.
func TestNewStreamBesideTheOld(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 2, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	src.mustCheckpoint()
	old, _ := dialReady(t, r)
	n, _ := src.sender.Number()
	stale := Begin{Epoch: 3, Sequence: n, Base: 0, Root: n, RAMSize: ramPages * memory.PageSize, Spec: []byte("spec")}
	if err := old.Send(KindBegin, stale); err != nil {
		t.Fatal(err)
	}
	src.restart()
	src.attach(r)
	last, _ := src.mustCheckpoint()
	if err := old.Send(KindEnd, End{Epoch: 3, Sequence: n, Checksum: memory.NewDigest().Sum(), BlobSum: emptySum}); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := old.Receive(); err != nil || kind != KindRefused {
		t.Errorf("kind %d, %v", kind, err)
	}
	_ = r.Close()
	if got := verify(t, cfg, src.instants, 4); got != last {
		t.Errorf("holds %d", got)
	}
}

// A takeover right after a commit that failed half-way through the RAM image
// finishes that commit first.
func TestTakeOverAfterAFailedApply(t *testing.T) {
	cfg, armed := peerIn(t, t.TempDir()), false
	cfg.before = func(change, _ string) error {
		if armed && change == "page" {
			armed = false
			return errTorn
		}
		return nil
	}
	src := newSource(t, 4, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	src.mustCheckpoint()
	armed = true
	n, _, err := src.checkpoint()
	if !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	c, err := r.TakeOver(t.Context(), 4)
	if err != nil || c.Sequence != n {
		t.Fatalf("took over %d: %v", c.Sequence, err)
	}
	if got, err := os.ReadFile(c.RAMPath); err != nil || !bytes.Equal(got, src.instants[n]) {
		t.Errorf("RAM differs from the instant of checkpoint %d (%v)", n, err)
	}
}

// Recovering from a failed write sweeps away what another stream has staged:
// that checkpoint must not be committed without its file.
func TestSweptStageIsNotCommitted(t *testing.T) {
	cfg, armed := peerIn(t, t.TempDir()), false
	cfg.before = func(change, _ string) error {
		if armed && change == "syncdir" {
			armed = false
			return io.ErrShortWrite
		}
		return nil
	}
	src := newSource(t, 5, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	l, _ := dialReady(t, r)
	if err := l.Send(KindBegin, Begin{Epoch: 3, Sequence: 5, Root: 5, RAMSize: ramPages * memory.PageSize}); err != nil {
		t.Fatal(err)
	}
	if err := l.Send(KindBlob, Blob{Epoch: 3, Sequence: 5}); err != nil { // the Begin has been handled
		t.Fatal(err)
	}
	armed = true
	if err := r.Void(t.Context(), 3, 2, "off"); err == nil || armed {
		t.Fatal("the void did not fail")
	}
	_, _ = dialReady(t, r) // loads the record again
	src.disks.at(t, 5)
	if err := l.Send(KindEnd, End{Epoch: 3, Sequence: 5, Checksum: memory.NewDigest().Sum(), BlobSum: emptySum}); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := l.Receive(); err != nil || kind != KindRefused {
		t.Errorf("kind %d, %v", kind, err)
	}
	if s := mustStatus(t, r); s.Complete {
		t.Errorf("status %+v", s)
	}
}

var emptySum = []byte("\xe3\xb0\xc4\x42\x98\xfc\x1c\x14\x9a\xfb\xf4\xc8\x99\x6f\xb9\x24\x27\xae\x41\xe4\x64\x9b\x93\x4c\xa4\x95\x99\x1b\x78\x52\xb8\x55")

// A peer that says nothing costs the bound, not for ever.
func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shadow, err := memory.NewShadow(memory.PageSize)
		if err != nil {
			t.Fatal(err)
		}
		defer shadow.Close()
		numbers, err := OpenCounter(filepath.Join(t.TempDir(), "counter"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSender(SenderConfig{Epoch: 1, Shadow: shadow, Numbers: numbers, AckTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		defer far.Close()
		started := time.Now()
		if _, err := s.Attach(t.Context(), wire.NewConn(near, wire.Options{})); !errors.Is(err, ErrLink) {
			t.Errorf("attach: %v", err)
		}
		near, far = net.Pipe()
		peer := wire.NewConn(far, wire.Options{})
		defer peer.Close()
		go func() { _ = peer.Send(KindReady, Ready{}) }()
		if _, err := s.Attach(t.Context(), wire.NewConn(near, wire.Options{})); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, far) }()
		n, err := s.Number()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(t.Context(), Outgoing{Sequence: n}); !errors.Is(err, ErrLink) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("send: %v", err)
		}
		if took := time.Since(started); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		if _, err := s.Send(t.Context(), Outgoing{Sequence: n}); !errors.Is(err, ErrLink) {
			t.Errorf("send without a stream: %v", err)
		}
	})
}

func TestCounterNeverRepeats(t *testing.T) {
	for at := 1; at <= 6; at++ {
		path := filepath.Join(t.TempDir(), "counter")
		last := uint64(0)
		for round := range 4 {
			c, err := OpenCounter(path)
			if err != nil {
				t.Fatal(err)
			}
			crash := &reaper{at: at * (round % 2)}
			c.files.before = crash.before
			for i := range uint64(3) {
				n, err := c.Next(i * 5000)
				if err != nil {
					break // crashed
				}
				if n <= last || n <= i*5000 {
					t.Fatalf("%d after %d", n, last)
				}
				last = n
			}
		}
	}
	path := filepath.Join(t.TempDir(), "counter")
	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCounter(path); !errors.Is(err, ErrRecord) {
		t.Errorf("damaged counter: %v", err)
	}
}

func TestDamagedRecordIsNotTrusted(t *testing.T) {
	cfg := peerIn(t, t.TempDir())
	src := newSource(t, 3, 3, cfg.Disks.(testDisks))
	r := mustOpen(t, cfg)
	src.attach(r)
	src.mustCheckpoint()
	_ = r.Close()
	path := filepath.Join(cfg.Dir, recordName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 1 + len(good)/200 {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		if _, err := decodeRecord(bad); !errors.Is(err, ErrRecord) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := decodeRecord(good[:i]); !errors.Is(err, ErrRecord) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if err := os.WriteFile(path, good[:len(good)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrRecord) {
		t.Errorf("open: %v", err)
	}
	outside, err := (&record{Commit: &commit{RAM: "../x.ram", Begin: Begin{RAMSize: 4096}, End: End{BlobSum: emptySum}}}).encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeRecord(outside); !errors.Is(err, ErrRecord) {
		t.Errorf("record that names a file elsewhere: %v", err)
	}
	if err := Remove(cfg); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(cfg.RAMDir)
	if _, gone := os.Stat(cfg.Dir); err != nil || len(left) != 0 || !errors.Is(gone, os.ErrNotExist) {
		t.Errorf("%v left after Remove (%v)", left, err)
	}
}

func FuzzRecord(f *testing.F) {
	for _, r := range []*record{{}, {Floor: 3, Void: &Void{Epoch: 2, Reason: "off"}},
		{Commit: &commit{RAM: "a.ram", Begin: Begin{RAMSize: 4096}, End: End{BlobSum: emptySum}}}} {
		data, err := r.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeRecord(data); err == nil && r.Commit != nil && filepath.Base(r.Commit.RAM) != r.Commit.RAM {
			t.Fatal("a record names a file elsewhere")
		}
	})
}

// script is a Stream that plays frames: u8 kind, u16 length, body.
type script struct{ data []byte }

func (s *script) Send(wire.Kind, any) error { return nil }
func (s *script) Close() error              { return nil }

func (s *script) Receive() (wire.Kind, []byte, error) {
	if len(s.data) < 3 {
		return 0, nil, io.EOF
	}
	n := min(int(binary.BigEndian.Uint16(s.data[1:])), len(s.data)-3)
	kind, body := wire.Kind(s.data[0]), s.data[3:3+n]
	s.data = s.data[3+n:]
	return kind, body, nil
}

// FuzzReceiver plays any frames to a replica. It must not crash, and afterwards
// an honest sender must be able to go on, unless the frames were themselves a
// later checkpoint or a void.
func FuzzReceiver(f *testing.F) {
	play := func(frames ...any) []byte {
		var out []byte
		for i := 0; i < len(frames); i += 2 {
			body, err := msgpack.Marshal(frames[i+1])
			if err != nil {
				f.Fatal(err)
			}
			out = append(binary.BigEndian.AppendUint16(append(out, byte(frames[i].(wire.Kind))), uint16(len(body))), body...)
		}
		return out
	}
	begin := Begin{Epoch: 1, Sequence: 5, Root: 5, RAMSize: 4 * memory.PageSize}
	end := End{Epoch: 1, Sequence: 5, Checksum: memory.NewDigest().Sum(), BlobSum: emptySum}
	f.Add(play(KindBegin, begin, KindEnd, end))
	f.Add(play(KindBegin, begin, KindChunk, Chunk{Epoch: 1, Sequence: 5, Data: make([]byte, 40)}, KindEnd, end))
	f.Add(play(KindBegin, begin, KindBlob, Blob{Epoch: 1, Sequence: 5, Data: []byte("x")}, KindEnd, end))
	f.Add(play(KindVoid, Void{Epoch: 1, Sequence: 5, Reason: "off"}, KindBegin, begin))
	f.Add([]byte{byte(KindEnd), 0, 1, 0xc0})
	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		r, err := Open(t.Context(), Config{Dir: filepath.Join(root, "s"), RAMDir: filepath.Join(root, "r"), Name: "g",
			MaxRAM: func() int64 { return 1 << 20 }, MarkTimeout: time.Second, BootID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_ = r.Receive(t.Context(), &script{data})
		got := mustStatus(t, r)
		left, err := filepath.Glob(filepath.Join(root, "r", "*"))
		if err != nil || len(left) > 1 || (len(left) == 1) != got.Complete {
			t.Fatalf("%v left, status %+v", left, got)
		}
		if got.Complete && (got.Epoch == 0 || got.Sequence == 0 || got.RAMSize > 1<<20) {
			t.Fatalf("status %+v", got)
		}
	})
}
