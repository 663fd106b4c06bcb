package witness

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmctl/ha"
	"vmctl/node/lease"
	"vmctl/node/peer"
	"vmctl/node/wire"
)

// ends says whether the witness ends a connection.
func (v *voter) ends() bool {
	v.conn.SetTimeouts(2*silence, 2*silence)
	for {
		switch _, _, err := v.conn.Receive(); {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false
		default:
			return true
		}
	}
}

// two enrols two clusters; the first is the hostile one of each test.
func two(t *testing.T, dir, addr string) (evil, good *peer.Identity) {
	t.Helper()
	evil, good = found(t, "evil", "a"), found(t, "good", "a")
	for _, id := range []*peer.Identity{evil, good} {
		if err := enrol(id, addr, readToken(t, dir)); err != nil {
			t.Fatal(err)
		}
	}
	return evil, good
}

// speak keeps a link from falling silent until the function it returns is
// called, which says what went wrong.
func speak(v *voter) (quiet func() error) {
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(silence / 4)
		defer tick.Stop()
		for {
			v.seq++
			err := v.conn.Send(kindHeartbeat, ha.Heartbeat{From: ha.NodeID(v.id.Node), Boot: 1, Seq: v.seq, Renewals: []ha.Record{{Guest: "g", Epoch: 1, Owner: "a"}}})
			if err == nil {
				_, err = answer[ha.Ack](v)
			}
			select {
			case <-tick.C:
			case <-stop:
				ended <- err
				return
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() error { close(stop); return <-ended }
}

func TestHostileMembersAreCutOff(t *testing.T) {
	dir := t.TempDir()
	addr, _ := start(t, dir)
	evil, good := two(t, dir, addr)
	calm := dial(t, good, addr, dir)
	guests := func(n int, of string) (list []ha.Record) {
		for i := range n {
			list = append(list, ha.Record{Guest: ha.GuestID(fmt.Sprint(of, i)), Epoch: 1, Rev: 1, Owner: "a"})
		}
		return list
	}
	beat := func(v *voter, renewals []ha.Record) error {
		v.seq++
		return v.conn.Send(kindHeartbeat, ha.Heartbeat{From: "a", Boot: 1, Seq: v.seq, Renewals: renewals})
	}
	huge := lease.Options()
	huge.MaxFrame = 64 << 20
	for _, test := range []struct {
		name string
		act  func(*voter) error
	}{
		{"too many messages", func(v *voter) error {
			for range 20 * maxRate {
				if beat(v, nil) != nil {
					break
				}
			}
			return nil
		}},
		{"a kind nobody knows", func(v *voter) error { return v.conn.Send(77, "x") }},
		{"a body that is none", func(v *voter) error { return v.conn.Send(kindHeartbeat, []int{1, 2, 3}) }},
		{"a repetition of nothing", func(v *voter) error { return v.conn.Send(22, uint64(7)) }},
		{"a length of 4 GiB", func(v *voter) error { _, err := v.conn.Raw().Write([]byte{255, 255, 255, 255, 16}); return err }},
		{"an oversize heartbeat", func(v *voter) error { return v.conn.Send(kindHeartbeat, strings.Repeat("x", maxFrame+1)) }},
		{"too many guests at once", func(v *voter) error { return beat(v, guests(maxGuests+1, "once")) }},
		{"too many guests in turns", func(v *voter) error {
			for i := range 5 {
				if err := beat(v, guests(maxGuests/4, fmt.Sprint("turn", i, "-"))); err != nil {
					return err
				}
			}
			return nil
		}},
		{"an endless id", func(v *voter) error { return beat(v, guests(1, strings.Repeat("g", maxID+1))) }},
	} {
		conn, err := evil.Dial(t.Context(), remote(t, addr, dir), lease.Purpose, "", huge)
		if err != nil {
			t.Fatal(err)
		}
		v := &voter{id: evil, conn: conn, seq: uint64(time.Now().UnixNano())}
		quiet := speak(calm)
		if err := test.act(v); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") && !strings.Contains(err.Error(), "broken pipe") {
			t.Fatalf("%s: %v", test.name, err)
		}
		if !v.ends() {
			t.Errorf("%s: the connection goes on", test.name)
		}
		conn.Close()
		if err := quiet(); err != nil {
			t.Fatalf("%s: the other cluster: %v", test.name, err)
		}
		calm.heartbeat(t, ha.Record{Guest: "g", Epoch: 1, Owner: "a"})
	}
	// Claims of guests without number, slowly enough.
	known := known{}
	for i := range 2 * maxGuests {
		if err := known.claim("a", ha.GuestID(fmt.Sprint(i))); (err != nil) != (i >= maxGuests) {
			t.Fatalf("claim %d: %v", i, err)
		}
	}
	for i := range 2 * maxNodes {
		if err := known.node(ha.NodeID(fmt.Sprint(i))); (err != nil) != (i >= maxNodes) {
			t.Fatalf("node %d: %v", i, err)
		}
	}
}

// Connections beyond a cluster's share are refused, and unfinished messages
// beyond everybody's end the connection that made them.
func TestSharesOfOneCluster(t *testing.T) {
	dir := t.TempDir()
	addr, _ := start(t, dir)
	evil, good := two(t, dir, addr)
	calm := dial(t, good, addr, dir)
	var links []*voter
	for i := range maxLinks + 2 {
		links = append(links, dial(t, second(t, evil, fmt.Sprint("n", i)), addr, dir))
	}
	for i, v := range links {
		if i < maxLinks {
			v.heartbeat(t)
		} else if !v.ends() {
			t.Errorf("connection %d of a cluster is served", i+1)
		}
	}
	again := dial(t, links[0].id, addr, dir) // takes the place of the first
	again.seq = 1 << 20
	again.heartbeat(t)
	if !links[0].ends() {
		t.Error("a node has two connections")
	}
	calm.heartbeat(t, ha.Record{Guest: "g", Epoch: 1, Owner: "a"})

	// Two clusters of four links with a frame of one MiB each, but for its end.
	ended := make(chan bool)
	n := 0
	for range 2 {
		cluster := found(t, "more", "a")
		if err := enrol(cluster, addr, readToken(t, dir)); err != nil {
			t.Fatal(err)
		}
		for i := range maxLinks {
			v := dial(t, second(t, cluster, fmt.Sprint("n", i)), addr, dir)
			n++
			go func() {
				part := append([]byte{0, 15, 255, 255, 16}, make([]byte, maxFrame-100)...)
				_, err := v.conn.Raw().Write(part)
				ended <- err != nil || v.ends()
			}()
		}
	}
	cut := 0
	for range n {
		if <-ended {
			cut++
		}
	}
	if cut < n-maxBuffered/maxFrame {
		t.Errorf("%d of %d unfinished messages of one MiB are kept", n-cut, n)
	}
	calm = dial(t, good, addr, dir)
	calm.seq = 1 << 20
	calm.heartbeat(t, ha.Record{Guest: "g", Epoch: 1, Owner: "a"})
}

// TestTenThousandConnections: strangers from one address hold as many
// connections as they can, some silent, some slow, some talking garbage. The
// witness stays small, a node keeps its link, and another host gets a new one.
func TestTenThousandConnections(t *testing.T) {
	dir := t.TempDir()
	process, addr := child(t, dir)
	shop := found(t, "shop", "a")
	if err := enrol(shop, addr, readToken(t, dir)); err != nil {
		t.Fatal(err)
	}
	owner := dial(t, shop, addr, dir)
	record := ha.Record{Guest: "g", Epoch: 1, Owner: "a"}
	owner.heartbeat(t, record)
	before := memory(t, process.Process.Pid)
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}, Timeout: 5 * time.Second}
	var held []net.Conn
	defer func() {
		for _, conn := range held {
			conn.Close()
		}
	}()
	most := 0
	for i := range 10_000 {
		conn, err := stranger.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 1:
			_, _ = conn.Write([]byte{22})
		case 2:
			_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		case 3:
			_, _ = conn.Write(append([]byte{22, 3, 1, 0x3f, 0xff}, bytes.Repeat([]byte{1}, 100)...))
		}
		if held = append(held, conn); len(held) > 1000 {
			held[0].Close()
			held = held[1:]
		}
		if i%1000 == 999 {
			most = max(most, files(t, process.Process.Pid))
			owner.heartbeat(t, record)
		}
	}
	dial(t, second(t, shop, "b"), addr, dir).ask(t, ha.Ask{Guest: "g", Epoch: 2})
	after := memory(t, process.Process.Pid)
	t.Logf("open files at most %d, memory %.1f MB before and %.1f MB after", most, float64(before)/1e6, float64(after)/1e6)
	if most > 200 {
		t.Errorf("the witness held %d files", most)
	}
	if after > before+20e6 {
		t.Errorf("the witness grew from %d to %d bytes", before, after)
	}
}

func files(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// memory is a process's VmRSS in bytes.
func memory(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb * 1024
}

// A witness of before answers in full: its own words must be understood by
// nodes of before, too.
func TestOlderNodesAreServed(t *testing.T) {
	dir := t.TempDir()
	addr, _ := start(t, dir)
	shop := found(t, "shop", "a")
	if err := enrol(shop, addr, readToken(t, dir)); err != nil {
		t.Fatal(err)
	}
	older := dialVersion(t, shop, addr, dir, 1)
	for range 3 {
		older.seq++
		if err := older.conn.Send(kindHeartbeat, ha.Heartbeat{From: "a", Boot: 1, Seq: older.seq, Renewals: []ha.Record{{Guest: "g", Epoch: 1, Owner: "a"}}}); err != nil {
			t.Fatal(err)
		}
		kind, body, err := older.conn.Receive()
		var ack ha.Ack
		if err == nil {
			err = wire.Decode(body, &ack)
		}
		if err != nil || kind != 17 || ack.Seq != older.seq || len(ack.Grants) != 1 || !ack.Grants[0].OK {
			t.Errorf("kind %d, %+v, %v", kind, ack, err)
		}
	}
}

// dialVersion makes a lease connection as a node does that speaks no newer
// wire version.
func dialVersion(t *testing.T, id *peer.Identity, addr, dir string, version int) *voter {
	t.Helper()
	key, err := x509.ParseECPrivateKey(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	secure, err := tls.Dial("tcp", addr, &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{id.Cert, id.CACert}, PrivateKey: key}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { secure.Close() })
	conn := wire.NewConn(secure, lease.Options())
	hello := wire.Hello{Magic: "vmctl", Version: version, MinVersion: version, Cluster: id.Cluster, Node: id.Node, Purpose: lease.Purpose}
	if err := conn.Send(1, hello); err != nil {
		t.Fatal(err)
	}
	kind, body, err := conn.Receive()
	var welcome wire.Welcome
	if err == nil {
		err = wire.Decode(body, &welcome)
	}
	if err != nil || kind != 2 || welcome.Version != version {
		t.Fatalf("kind %d, %+v, %v", kind, welcome, err)
	}
	return &voter{id: id, conn: conn, in: lease.NewDecoder(witnessID(t, dir))}
}
