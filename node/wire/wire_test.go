package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func pair(t *testing.T, opts Options) (*Conn, *Conn) {
	t.Helper()
	a, b := net.Pipe()
	ca, cb := NewConn(a, opts), NewConn(b, opts)
	t.Cleanup(func() { ca.Close(); cb.Close() })
	return ca, cb
}

type note struct {
	Text string `msgpack:"text"`
	Data []byte `msgpack:"data"`
}

func TestFramesArriveInOrderFromManySenders(t *testing.T) {
	a, b := pair(t, Options{})
	const senders, each = 4, 50
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				if err := a.Send(Kind(16+s), note{Text: strings.Repeat("x", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := map[Kind]int{}
	for range senders * each {
		kind, body, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var n note
		if err := Decode(body, &n); err != nil {
			t.Fatal(err)
		}
		if len(n.Text) != next[kind] {
			t.Fatalf("kind %d: got %d, want %d", kind, len(n.Text), next[kind])
		}
		next[kind]++
	}
	wg.Wait()
}

func TestLargeFrame(t *testing.T) {
	a, b := pair(t, Options{})
	want := bytes.Repeat([]byte{7}, 3<<20)
	go a.Send(20, note{Data: want})
	kind, body, err := b.Receive()
	if err != nil || kind != 20 {
		t.Fatal(kind, err)
	}
	var n note
	if err := Decode(body, &n); err != nil || !bytes.Equal(n.Data, want) {
		t.Fatal("large frame did not arrive whole", err)
	}
}

func TestBadFrames(t *testing.T) {
	length := func(n uint32, rest ...byte) []byte { return append(binary.BigEndian.AppendUint32(nil, n), rest...) }
	tests := []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"oversized", length(1 << 30), ErrFrameTooLarge},
		{"cut in the header", []byte{0, 0}, ErrMalformed},
		{"cut in the body", length(10, 1, 2), ErrMalformed},
		{"empty", length(0), ErrMalformed},
		{"no body", length(1, 17), ErrMalformed},
		{"kind is a string", length(3, 0xa1, 'x', 0xc0), ErrMalformed},
		{"closed between frames", nil, io.EOF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			left, right := net.Pipe()
			go func() { left.Write(test.bytes); left.Close() }()
			if _, _, err := NewConn(right, Options{}).Receive(); !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestSendRefusesOversizedAndStaysGood(t *testing.T) {
	a, b := pair(t, Options{MaxFrame: 1000})
	if err := a.Send(16, note{Data: make([]byte, 2000)}); !errors.Is(err, ErrFrameTooLarge) {
		t.Fatal(err)
	}
	go a.Send(16, note{Text: "still here"})
	if _, _, err := b.Receive(); err != nil {
		t.Fatal(err)
	}
}

func TestTimeouts(t *testing.T) {
	a, b := pair(t, Options{WriteTimeout: 20 * time.Millisecond, ReadTimeout: 20 * time.Millisecond})
	if _, _, err := a.Receive(); !isTimeout(err) {
		t.Fatal("receive from a silent end:", err)
	}
	if err := b.Send(16, 1); !isTimeout(err) {
		t.Fatal("send to an end that does not read:", err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestHandshake(t *testing.T) {
	refuse := errors.New("node-b belongs to another cluster")
	tests := []struct {
		name  string
		hello Hello
		check error
		want  error
	}{
		{"taken", Hello{Node: "a", Purpose: "heartbeat"}, nil, nil},
		{"refused with a reason", Hello{Node: "a", Purpose: "heartbeat"}, refuse, ErrRefused},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := pair(t, Options{})
			type result struct {
				hello Hello
				err   error
			}
			accepted := make(chan result, 1)
			go func() {
				hello, err := Accept(b, "b", func(Hello) error { return test.check })
				accepted <- result{hello, err}
			}()
			welcome, err := Greet(a, test.hello)
			got := <-accepted
			if !errors.Is(err, test.want) || !errors.Is(got.err, test.check) {
				t.Fatalf("greet: %v, accept: %v", err, got.err)
			}
			if err == nil && (welcome.Node != "b" || got.hello.Purpose != "heartbeat") {
				t.Fatalf("%+v %+v", welcome, got.hello)
			}
			if err != nil && !strings.Contains(err.Error(), refuse.Error()) {
				t.Fatalf("the reason is lost: %v", err)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	tests := []struct {
		name     string
		hello    Hello
		want     int
		wantFail bool
	}{
		{"same", Hello{Version: Version, MinVersion: MinVersion}, Version, false},
		{"newer that still speaks ours", Hello{Version: Version + 1, MinVersion: Version}, Version, false},
		{"newer that does not", Hello{Version: Version + 2, MinVersion: Version + 1}, 0, true},
		{"too old", Hello{Version: MinVersion - 1, MinVersion: 0}, 0, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := commonVersion(test.hello)
			if got != test.want || (err != nil) != test.wantFail {
				t.Fatal(got, err)
			}
			if err != nil && !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
		})
	}
}

func TestRawKeepsWhatWasReadAhead(t *testing.T) {
	left, right := net.Pipe()
	defer left.Close()
	go func() {
		c := NewConn(left, Options{})
		_ = c.Send(16, "last frame")
		left.Write([]byte("GET /"))
	}()
	c := NewConn(right, Options{})
	if _, _, err := c.Receive(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c.Raw(), got); err != nil || string(got) != "GET /" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestDecodeOutlivesTheDecodersPanic(t *testing.T) {
	var v struct {
		At time.Time `msgpack:"at"`
	}
	body := []byte{0x81, 0xa2, 'a', 't', 0xc0}
	if err := Decode(body, &v); !errors.Is(err, ErrMalformed) {
		t.Fatal(err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 16, 0xc0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 5, 16, 0xdd, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		in, buf := bytes.NewReader(data), []byte(nil)
		for {
			payload, err := readFrame(in, 1<<16, &buf)
			if err != nil {
				return
			}
			if len(payload) > 1<<16 {
				t.Fatal("frame over the limit")
			}
			if _, body, err := splitFrame(payload); err == nil {
				var hello Hello
				_ = Decode(body, &hello)
			}
		}
	})
}

// Frames made and cut without a Conn are the same ones.
func TestFramesWithoutAConn(t *testing.T) {
	a, b := net.Pipe()
	conn := NewConn(a, Options{})
	sent := note{Text: "x", Data: []byte{1, 2, 3}}
	go func() { _ = conn.Send(17, sent); a.Close() }()
	stream, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := AppendFrame([]byte("before"), 1000, 17, sent)
	if err != nil || string(frame) != "before"+string(stream) {
		t.Fatalf("%x instead of %x, %v", frame, stream, err)
	}
	if _, err := AppendFrame(nil, 10, 17, sent); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("a long frame: %v", err)
	}
	for n := range stream {
		if size, _, _, err := CutFrame(stream[:n], 1000); size != 0 || err != nil {
			t.Errorf("%d of %d bytes are a frame: %v", n, len(stream), err)
		}
	}
	size, kind, body, err := CutFrame(append(stream, stream...), 1000)
	var got note
	if err == nil {
		err = Decode(body, &got)
	}
	if err != nil || size != len(stream) || kind != 17 || got.Text != sent.Text {
		t.Errorf("%d bytes of kind %d, %+v: %v", size, kind, got, err)
	}
	if _, _, _, err := CutFrame(stream, 10); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("a long frame is cut: %v", err)
	}
	if _, _, _, err := CutFrame([]byte{0, 0, 0, 1, 17}, 10); !errors.Is(err, ErrMalformed) {
		t.Errorf("a frame without a body: %v", err)
	}
}
