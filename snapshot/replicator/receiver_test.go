package replicator

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"vmctl/node/wire"
	"vmctl/snapshot/undo"
)

const replicaSize = 1 << 20

func newReceiver(t testing.TB) (*Receiver, *undo.Disk) {
	t.Helper()
	disk, err := undo.Open(filepath.Join(t.TempDir(), "d"), replicaSize)
	must(t, err)
	t.Cleanup(func() { disk.Close() })
	return NewReceiver(ReceiverOptions{Guest: "g", Epoch: 3, Disks: map[string]*undo.Disk{"d": disk}}, quiet()), disk
}

func hello() *Hello {
	return &Hello{Guest: "g", Epoch: 3, Disks: []DiskInfo{{Name: "d", Size: replicaSize}}}
}

// converse sends messages to a receiver, and returns what Serve returned and
// the last word it sent.
func converse(r *Receiver, messages ...frame) (said string, _ error) {
	owner, peer := pipe()
	served := make(chan error, 1)
	go func() { served <- r.Serve(context.Background(), peer) }()
	word := make(chan string, 1)
	go func() {
		last := ""
		for {
			kind, body, err := owner.Receive()
			if err != nil {
				word <- last
				return
			}
			var failure Failure
			if kind == KindError && decode(body, &failure) == nil {
				last = failure.Text
			}
		}
	}()
	for _, m := range messages {
		if owner.Send(m.kind, m.body) != nil {
			break
		}
	}
	err := <-served
	return <-word, err
}

func TestReceiverRefuses(t *testing.T) {
	change := func(f func(*Hello)) frame {
		h := hello()
		f(h)
		return frame{KindHello, h}
	}
	ok := frame{KindHello, hello()}
	for name, c := range map[string]struct {
		messages []frame
		want     error
	}{
		"stale epoch":        {[]frame{change(func(h *Hello) { h.Epoch = 2 })}, ErrStaleEpoch},
		"other guest":        {[]frame{change(func(h *Hello) { h.Guest = "x" })}, ErrOtherDisks},
		"other size":         {[]frame{change(func(h *Hello) { h.Disks[0].Size++ })}, ErrOtherDisks},
		"other disk":         {[]frame{change(func(h *Hello) { h.Disks[0].Name = "x" })}, ErrOtherDisks},
		"missing disk":       {[]frame{change(func(h *Hello) { h.Disks = nil })}, ErrOtherDisks},
		"no hello":           {[]frame{{KindMarker, &Marker{ID: 1}}}, ErrMessage},
		"second hello":       {[]frame{ok, ok}, ErrMessage},
		"gap in the ids":     {[]frame{ok, {KindWrite, &Write{ID: 2, Data: []byte("x")}}}, ErrMessage},
		"unknown disk":       {[]frame{ok, {KindWrite, &Write{Disk: 1, ID: 1, Data: []byte("x")}}}, ErrMessage},
		"not a write":        {[]frame{ok, {KindWrite, "text"}}, ErrMessage},
		"write outside":      {[]frame{ok, {KindWrite, &Write{ID: 1, Offset: replicaSize, Data: []byte("x")}}}, undo.ErrRange},
		"zero outside":       {[]frame{ok, {KindZero, &Zero{ID: 1, Offset: -1, Length: 1}}}, undo.ErrRange},
		"marker goes back":   {[]frame{ok, {KindMarker, &Marker{ID: 1, Sequence: 5}}, {KindMarker, &Marker{ID: 2, Sequence: 5}}}, undo.ErrMarker},
		"hashes outside":     {[]frame{ok, {KindHashRequest, &HashRequest{Count: replicaSize/ChunkSize + 1}}}, ErrMessage},
		"hashes off a chunk": {[]frame{ok, {KindHashRequest, &HashRequest{Offset: 1, Count: 1}}}, ErrMessage},
		"too many hashes":    {[]frame{ok, {KindHashRequest, &HashRequest{Count: 1 << 31}}}, ErrMessage},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newReceiver(t)
			word, err := converse(r, c.messages...)
			if !errors.Is(err, c.want) {
				t.Errorf("Serve: %v, want %v", err, c.want)
			}
			if word == "" || !strings.Contains(err.Error(), word) {
				t.Errorf("the owner was told %q, the reason is %v", word, err)
			}
		})
	}
}

// Frames already received must not land after Stop has returned.
func TestNothingLandsAfterStop(t *testing.T) {
	for range 20 {
		r, disk := newReceiver(t)
		owner, peer := pipe()
		served := make(chan error, 1)
		go func() { served <- r.Serve(context.Background(), peer) }()
		go func() {
			for {
				if _, _, err := owner.Receive(); err != nil {
					return
				}
			}
		}()
		must(t, owner.Send(KindHello, hello()))
		const before = 20
		reached := make(chan struct{})
		go func() {
			data := make([]byte, 4096)
			for id := uint64(1); ; id++ {
				data[0]++
				if owner.Send(KindWrite, &Write{ID: id, Offset: int64(id%200) * 4096, Data: data}) != nil {
					return
				}
				if id == before {
					close(reached)
				}
			}
		}()
		<-reached
		r.Stop()
		image := make([]byte, replicaSize)
		_, err := disk.ReadAt(image, 0)
		must(t, err)
		<-served
		after := make([]byte, replicaSize)
		_, err = disk.ReadAt(after, 0)
		must(t, err)
		if !bytes.Equal(image, after) {
			t.Fatal("a write landed after Stop")
		}
		if _, err := converse(r, frame{KindHello, hello()}); !errors.Is(err, ErrStopped) {
			t.Fatalf("a stream after Stop: %v", err)
		}
		owner.Close()
	}
}

func TestNewerStreamTakesOver(t *testing.T) {
	r, _ := newReceiver(t)
	first, peer := pipe()
	served := make(chan error, 1)
	go func() { served <- r.Serve(context.Background(), peer) }()
	must(t, first.Send(KindHello, hello()))
	must(t, first.Send(KindWrite, &Write{ID: 1, Data: []byte("x")}))
	if kind, _, err := first.Receive(); kind != KindAck || err != nil {
		t.Fatalf("answer %d, %v", kind, err)
	}
	newer := hello()
	newer.Epoch = 4
	_, err := converse(r, frame{KindHello, newer}, frame{KindMarker, "bad"})
	if !errors.Is(err, ErrMessage) {
		t.Fatalf("second stream: %v", err)
	}
	if err := <-served; err == nil {
		t.Fatal("first stream was not ended")
	}
	if _, err := converse(r, frame{KindHello, hello()}); !errors.Is(err, ErrStaleEpoch) {
		t.Fatalf("the epoch before again: %v", err)
	}
	if err := r.WaitMark(t.Context(), 1); !errors.Is(err, ErrLinkLost) {
		t.Fatalf("marker without a stream: %v", err)
	}
}

func TestWritesAreFlushedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newReceiver(t)
		owner, peer := pipe()
		served := make(chan error, 1)
		go func() { served <- r.Serve(context.Background(), peer) }()
		must(t, owner.Send(KindHello, hello()))
		must(t, owner.Send(KindWrite, &Write{ID: 1, Data: []byte("x")}))
		_, _, err := owner.Receive()
		must(t, err)
		dirty := func() bool {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.dirty
		}
		if !dirty() {
			t.Error("not dirty after a write")
		}
		time.Sleep(1100 * time.Millisecond)
		if dirty() {
			t.Error("dirty after more than a second")
		}
		owner.Close()
		<-served
	})
}

func FuzzDecodeWrite(f *testing.F) {
	for _, w := range []*Write{{}, {Disk: 7, ID: 1 << 40, Offset: 1 << 33, Data: []byte("data")}, {Data: make([]byte, 300)}} {
		raw, err := msgpack.Marshal(w)
		must(f, err)
		f.Add(raw)
	}
	f.Add([]byte{0x94, 0xcc})
	f.Fuzz(func(t *testing.T, raw []byte) {
		w, err := decodeWrite(raw)
		if err != nil {
			return
		}
		if w.Offset < 0 || len(w.Data) > len(raw) {
			t.Fatalf("%+v is accepted", w)
		}
		again, err := msgpack.Marshal(&w)
		must(t, err)
		same, err := decodeWrite(again)
		if err != nil || same.Disk != w.Disk || same.ID != w.ID || same.Offset != w.Offset || !bytes.Equal(same.Data, w.Data) {
			t.Fatalf("%+v came back as %+v (%v)", w, same, err)
		}
	})
}

// FuzzReceiver gives the peer any frame after a good Hello: it must end, and
// only valid frames may change the disk.
func FuzzReceiver(f *testing.F) {
	for kind, body := range map[wire.Kind]any{
		KindWrite: &Write{ID: 1, Offset: 4096, Data: []byte("x")}, KindZero: &Zero{ID: 1, Length: 9},
		KindMarker: &Marker{ID: 1, Sequence: 2}, KindHashRequest: &HashRequest{ID: 1, Count: 2}, KindHello: hello(),
	} {
		raw, err := msgpack.Marshal(body)
		must(f, err)
		f.Add(uint8(kind), raw)
	}
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		r, disk := newReceiver(t)
		script := &scripted{frames: []frame{{KindHello, hello()}, {wire.Kind(kind), msgpack.RawMessage(raw)}}}
		if err := r.Serve(t.Context(), script); err == nil {
			t.Fatal("Serve returned nil")
		}
		if disk.Size() != replicaSize {
			t.Fatal("size changed")
		}
	})
}

// FuzzOwner gives the owner any answer.
func FuzzOwner(f *testing.F) {
	for kind, body := range map[wire.Kind]any{
		KindAck: &Ack{ID: 1}, KindHashReply: &HashReply{ID: 1, Sums: make([]byte, 16)}, KindError: &Failure{Text: "no"},
	} {
		raw, err := msgpack.Marshal(body)
		must(f, err)
		f.Add(uint8(kind), raw)
	}
	f.Fuzz(func(t *testing.T, kind uint8, raw []byte) {
		r, err := New(Options{
			Guest: "g", Degrade: func(context.Context) error { return nil }, InSync: func(context.Context) error { return nil },
			Disks: []Disk{{Name: "d", Size: 5, Source: func(context.Context) (Source, error) { return nil, os.ErrNotExist }}},
		}, quiet())
		must(t, err)
		l := &link{r: r, requests: map[uint64]*hashCall{1: {chunks: 1, done: make(chan struct{})}}}
		l.await(time.Now())
		_ = l.take(wire.Kind(kind), raw)
	})
}

// scripted is a Stream that receives given frames and then ends.
type scripted struct{ frames []frame }

func (s *scripted) Send(wire.Kind, any) error { return nil }
func (s *scripted) Close() error              { return nil }

func (s *scripted) Receive() (wire.Kind, []byte, error) {
	if len(s.frames) == 0 {
		return 0, nil, os.ErrClosed
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	if raw, ok := f.body.(msgpack.RawMessage); ok {
		return f.kind, raw, nil
	}
	raw, err := msgpack.Marshal(f.body)
	return f.kind, raw, err
}
