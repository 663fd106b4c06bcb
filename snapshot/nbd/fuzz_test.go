package nbd

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func FuzzParseRequest(f *testing.F) {
	f.Add(request{kind: cmdWrite, flags: cmdFlagFUA, handle: 7, offset: 4096, length: 512}.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRequest(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(r.append(nil), raw[:requestSize]) {
			t.Fatal("request does not survive the way there and back")
		}
		const size = 1 << 20
		if r.check(size) == 0 && r.kind != cmdFlush && (r.offset > size || r.offset+uint64(r.length) > size) {
			t.Fatalf("%+v passes the check", r)
		}
	})
}

func FuzzParseInfoRequest(f *testing.F) {
	f.Add(infoRequest{name: "disk0", infos: []uint16{infoBlockSize}}.append(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		i, err := parseInfoRequest(raw)
		if err == nil && !bytes.Equal(i.append(nil), raw) {
			t.Fatal("info request does not survive the way there and back")
		}
	})
}

// FuzzServer feeds a whole client conversation to the server; it must end.
func FuzzServer(f *testing.F) {
	hello := []byte{0, 0, 0, 3}
	option := func(kind uint32, body []byte) []byte {
		raw := append([]byte("IHAVEOPT"), 0, 0, 0, byte(kind), 0, 0, 0, byte(len(body)))
		return append(raw, body...)
	}
	open := append(bytes.Clone(hello), option(optGo, infoRequest{name: "d"}.append(nil))...)
	f.Add(append(bytes.Clone(open), append(request{kind: cmdWrite, length: 4}.append(nil), "data"...)...))
	f.Add(append(bytes.Clone(open), request{kind: cmdRead, length: 100}.append(nil)...))
	f.Add(append(append(bytes.Clone(hello), option(optList, nil)...), option(optStartTLS, nil)...))
	f.Add(append(bytes.Clone(hello), option(optExportName, []byte("d"))...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		server := NewServer(map[string]Export{"d": {Device: &memory{bytes: make([]byte, 8192)}}}, quiet())
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.ServeConn(t.Context(), theirs)
		}()
		go func() { _, _ = io.Copy(io.Discard, ours) }()
		_ = ours.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = ours.Write(raw)
		ours.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("server does not end")
		}
	})
}

// FuzzClient feeds a whole server conversation to the client; it must end.
func FuzzClient(f *testing.F) {
	greeting := append([]byte("NBDMAGICIHAVEOPT"), 0, 3)
	f.Add(greeting)
	ack := func(option byte) []byte {
		return append([]byte{0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9}, 0, 0, 0, option, 0, 0, 0, 1, 0, 0, 0, 0)
	}
	info := append([]byte{0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9}, 0, 0, 0, optGo, 0, 0, 0, 3, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 1)
	talk := bytes.Join([][]byte{greeting, ack(optStructured), ack(optSetMeta), info, ack(optGo)}, nil)
	f.Add(talk)
	f.Add(append(bytes.Clone(talk), 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() {
			_, _ = theirs.Write(raw)
			theirs.Close()
		}()
		client, err := newClient(t.Context(), ours, "d")
		if err != nil {
			ours.Close()
			return
		}
		_, _ = client.ReadAt(make([]byte, 16), 0)
		client.Close()
	})
}
