package replicator

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"

	"vmctl/node/wire"
	"vmctl/snapshot/undo"
)

// BenchmarkMirrorWrite is one write through everything but QEMU and TLS: NBD on
// a unix socket, a loopback stream, undo log and image, and the way back.
func BenchmarkMirrorWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, depth := range []int{1, 16} {
			b.Run(fmt.Sprintf("%dk/depth%d", size>>10, depth), func(b *testing.B) { benchmarkWrite(b, size, depth) })
		}
	}
}

func benchmarkWrite(b *testing.B, size, depth int) {
	const disk = 64 << 20
	socket := filepath.Join(b.TempDir(), "s")
	replica, err := undo.Open(filepath.Join(b.TempDir(), "d"), disk)
	must(b, err)
	defer replica.Close()
	l := &live{bytes: make([]byte, disk)}
	owner, err := New(Options{
		Guest: "g", Degrade: func(context.Context) error { return nil }, InSync: func(context.Context) error { return nil },
		Disks: []Disk{{Name: "d", Size: disk, Socket: socket, Source: func(context.Context) (Source, error) { return l, nil }}},
	}, quiet())
	must(b, err)
	listeners, err := owner.Listen()
	must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- owner.Serve(ctx, listeners) }()
	x, y := loopback(b)
	receiver := NewReceiver(ReceiverOptions{Guest: "g", Disks: map[string]*undo.Disk{"d": replica}}, quiet())
	go func() { ended <- receiver.Serve(ctx, wire.NewConn(y, wire.Options{})) }()
	go func() { ended <- owner.Attach(ctx, wire.NewConn(x, wire.Options{}), Peer{}) }()

	conn, err := net.Dial("unix", socket)
	must(b, err)
	defer conn.Close()
	openExport(b, conn, "d")
	must(b, replica.Mark(1))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	pipeline(b, conn, size, depth, disk)
	b.StopTimer()
	cancel()
	for range 3 {
		<-ended
	}
}

// pipeline writes b.N times with so many requests under way.
func pipeline(b *testing.B, conn net.Conn, size, depth, disk int) {
	room := make(chan struct{}, depth)
	go func() {
		raw := make([]byte, 28+size)
		binary.BigEndian.PutUint32(raw, 0x25609513)
		raw[7] = 1 // write
		for n := range b.N {
			room <- struct{}{}
			binary.BigEndian.PutUint64(raw[16:], uint64(n*size%disk))
			binary.BigEndian.PutUint32(raw[24:], uint32(size))
			raw[28]++
			if _, err := conn.Write(raw); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	reply := make([]byte, 16)
	for range b.N {
		if _, err := io.ReadFull(conn, reply); err != nil || binary.BigEndian.Uint32(reply[4:]) != 0 {
			b.Fatalf("reply %x, %v", reply, err)
		}
		<-room
	}
}

// openExport does the old, short handshake.
func openExport(b *testing.B, conn net.Conn, name string) {
	_, err := io.ReadFull(conn, make([]byte, 18))
	must(b, err)
	hello := append([]byte{0, 0, 0, 3}, "IHAVEOPT"...)
	hello = append(hello, 0, 0, 0, 1, 0, 0, 0, byte(len(name)))
	_, err = conn.Write(append(hello, name...))
	must(b, err)
	_, err = io.ReadFull(conn, make([]byte, 10))
	must(b, err)
}

func loopback(b *testing.B) (net.Conn, net.Conn) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	defer listener.Close()
	x, err := net.Dial("tcp", listener.Addr().String())
	must(b, err)
	y, err := listener.Accept()
	must(b, err)
	return x, y
}
