package qmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
)

// A message without end must not fill the memory, wherever it is cut.
func TestMessageTooLong(t *testing.T) {
	whole := `{"return": "` + strings.Repeat("x", 2000) + `", "id": "1"}`
	for _, read := range []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader,
	} {
		d := newDecoder(read(strings.NewReader(strings.Repeat(whole, 5))), 4096)
		for range 5 {
			if m, err := d.next(); err != nil || m.id() != "1" {
				t.Fatalf("message below the limit: %v", err)
			}
		}
		if _, err := d.next(); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
		endless := io.MultiReader(strings.NewReader(whole), strings.NewReader(`{"return": "`+strings.Repeat("x", 20000)))
		d = newDecoder(read(endless), 4096)
		if _, err := d.next(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.next(); !errors.Is(err, ErrProtocol) || !errors.Is(err, errTooLong) {
			t.Fatalf("endless message: %v", err)
		}
	}
}

// Whatever comes, the decoder and what follows it neither panic nor read on
// after an error, and what they pass on is JSON.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`,
		`{"return": {}, "id": "x-1"}` + "\r\n" + `{"return": [{"a": 18446744073709551615}], "id": 5}`,
		`{"error": {"class": "GenericError", "desc": "no"}, "id": "x-1"}`,
		`{"error": null, "return": null, "id": null}`,
		`{"timestamp": {"seconds": 1, "microseconds": -1}, "event": "STOP"}`,
		`{"timestamp": {"seconds": 9e99}, "event": "STOP"}`,
		`{"event": "RESET", "data": {"guest": false}, "timestamp": {"seconds": 1700000000, "microseconds": 999999}}`,
		`{"return": "` + "\xff\xfe" + `"}`, `[]`, `{"QMP": 5}`, `{"return"`, `}{`, "\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newClient(nil, slog.New(slog.DiscardHandler))
		c.in = newDecoder(bytes.NewReader(data), 1<<20)
		k := &call{id: "x-1", command: "fuzz", inBand: true, reply: make(chan message, 1)}
		c.pending[k.id] = k
		s := &subscriber{wake: make(chan struct{}, 1)}
		c.subscribers[s] = struct{}{}
		for {
			m, err := c.in.next()
			if err != nil {
				if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrProtocol) {
					t.Fatalf("error is %v", err)
				}
				break
			}
			if m.QMP != nil {
				m.QMP.offers("oob")
			}
			if c.take(m) != nil {
				break
			}
		}
		for _, e := range s.queue {
			if e.Name == "" || e.Data != nil && !json.Valid(e.Data) {
				t.Fatalf("event %+v", e)
			}
			translate(e)
		}
		select {
		case m := <-k.reply:
			var v any
			if m.Error == nil && decodeReply(m.Return, &v) != nil {
				t.Fatalf("reply %q", m.Return)
			}
		default:
		}
	})
}

// The same for the schema, which is walked by names it chooses itself.
func FuzzSchema(f *testing.F) {
	f.Add([]byte(`[{"name":"c","meta-type":"command","arg-type":"o","ret-type":"o"},` +
		`{"name":"o","meta-type":"object","members":[{"name":"a","type":"l"}],"variants":[{"case":"v","type":"o"}]},` +
		`{"name":"l","meta-type":"array","element-type":"l"},{"name":"e","meta-type":"enum","values":["x"]}]`))
	f.Add([]byte(`[{"name":"c","meta-type":"command","arg-type":"o"},{"name":"o","meta-type":"alternate",` +
		`"members":[{"type":"o"},{"type":"o"}]}]`))
	f.Add([]byte(`[null, {}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Schema
		if json.Unmarshal(data, &s) != nil {
			return
		}
		for name := range s.entities {
			s.Has(name, "a", "v", "x")
			s.Returns(name, "a", "v", "x")
			s.Deprecated(name)
			s.AllowsOOB(name)
		}
		s.Features()
	})
}
