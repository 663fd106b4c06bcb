package witness

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmctl/ha"
)

// owned is a guest of node a that b may take over.
func owned(t *testing.T, dir string, guest string, rev uint64) ha.Record {
	return ha.Record{
		Guest: ha.GuestID(guest), Epoch: 1, Rev: rev, Owner: "a", Standby: "b", Arbiter: witnessID(t, dir), Run: true, Level: ha.LevelResume,
	}
}

// say sends a heartbeat and does not wait.
func (v *voter) say(t *testing.T, renewals ...ha.Record) {
	t.Helper()
	v.seq++
	if err := v.conn.Send(kindHeartbeat, ha.Heartbeat{From: ha.NodeID(v.id.Node), Boot: 1, Seq: v.seq, Renewals: renewals}); err != nil {
		t.Fatal(err)
	}
}

// TestNothingAcknowledgedIsLost kills the witness at ever later moments of the
// way from a vote's arrival over its storing to its acknowledgement. After each
// restart it must know every vote that it acknowledged.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	dir := t.TempDir()
	shop := found(t, "shop", "a")
	other := second(t, shop, "b")
	var acknowledged, rev uint64
	acks, early := 0, 0
	const rounds = 30
	for round := range rounds {
		process, addr := child(t, dir)
		if round == 0 {
			if err := enrol(shop, addr, readToken(t, dir)); err != nil {
				t.Fatal(err)
			}
		} else if reply := dial(t, other, addr, dir).ask(t, ha.Ask{Guest: "g", Epoch: 2}); reply.Record.Rev < acknowledged {
			t.Fatalf("round %d: the witness knows revision %d, it acknowledged %d", round, reply.Record.Rev, acknowledged)
		}
		owner := dial(t, shop, addr, dir)
		killed := make(chan struct{})
		delay := time.Duration(round) * 150 * time.Microsecond
		if round == rounds-1 {
			delay = time.Second // an acknowledgement for sure
		}
		before := acks
		rev++
		owner.say(t, owned(t, dir, "g", rev))
		go func() {
			defer close(killed)
			time.Sleep(delay)
			kill(process)
		}()
		for {
			ack, err := answer[ha.Ack](owner)
			if err != nil {
				break
			}
			if len(ack.Grants) != 1 || !ack.Grants[0].OK {
				t.Fatalf("round %d: %+v", round, ack)
			}
			acks++
			acknowledged = ack.Grants[0].Rev
			rev++
			owner.seq++
			if owner.conn.Send(kindHeartbeat, ha.Heartbeat{From: "a", Boot: 1, Seq: owner.seq, Renewals: []ha.Record{owned(t, dir, "g", rev)}}) != nil {
				break
			}
		}
		<-killed
		if acks == before {
			early++
		}
	}
	t.Logf("%d kills: %d votes acknowledged, %d kills before the first acknowledgement", rounds, acks, early)
	if acks == 0 {
		t.Error("no vote was acknowledged: the kills show nothing")
	}
}

// TestRestartedWitnessWaits: leases acknowledged before the restart may be
// alive, so nobody gets a guest before a window has passed.
func TestRestartedWitnessWaits(t *testing.T) {
	dir := t.TempDir()
	addr, stop := start(t, dir)
	shop := found(t, "shop", "a")
	other := second(t, shop, "b")
	if err := enrol(shop, addr, readToken(t, dir)); err != nil {
		t.Fatal(err)
	}
	dial(t, shop, addr, dir).heartbeat(t, owned(t, dir, "g", 1))
	stop()
	began := time.Now()
	addr, _ = start(t, dir)
	standby := dial(t, other, addr, dir)
	reply := standby.claim(t, ha.Claim{ID: 1, To: 2, Guest: "g", Prior: 1, Epoch: 2})
	if reply.OK || reply.Verdict != ha.JustStarted {
		t.Fatalf("a claim right after the restart: %+v", reply)
	}
	window := ha.DefaultTiming().Window()
	for claim := uint64(2); ; claim++ {
		reply := standby.claim(t, ha.Claim{ID: claim, To: 2, Guest: "g", Prior: 1, Epoch: 2})
		passed := time.Since(began)
		switch {
		case reply.OK && passed < window:
			t.Fatalf("granted %s after the restart, the window is %s", passed, window)
		case reply.OK:
			return
		case passed > window+10*time.Second:
			t.Fatalf("not granted %s after the restart: %+v", passed, reply)
		}
		time.Sleep(20 * time.Millisecond) // the witness's clock is the machine's
	}
}

// journal is a log that several goroutines write.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(word string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), word)
}

// TestFullDisk: a vote that cannot be stored is not cast, other clusters' plain
// renewals go on, the log says so once, and all is well when there is space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("witness-test", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	log := &journal{}
	logged := config(dir)
	logged.Log = slog.New(slog.NewTextHandler(log, nil))
	addr, stop := startWith(t, logged)
	defer stop()
	shop, bank := found(t, "shop", "a"), found(t, "bank", "a")
	for _, id := range []*voter{{id: shop}, {id: bank}} {
		if err := enrol(id.id, addr, readToken(t, dir)); err != nil {
			t.Fatal(err)
		}
	}
	stuck, calm := dial(t, shop, addr, dir), dial(t, bank, addr, dir)
	stuck.heartbeat(t, owned(t, dir, "g", 1))
	calm.heartbeat(t, owned(t, dir, "g", 1))
	filler := fill(t, dir)
	rev := uint64(1)
	refused := false
	for ; !refused && rev < 2000; rev++ { // the store has some pages left
		// It may be slow to answer, too.
		refused = stuck.ignored(t, addr, dir, manyGuests(t, dir, rev)...) && log.count("votes cannot be stored") > 0
	}
	if !refused {
		t.Fatal("the disk is never full")
	}
	for range 3 {
		if !stuck.ignored(t, addr, dir, manyGuests(t, dir, rev)...) {
			t.Error("a vote that could not be stored was cast")
		}
		calm.heartbeat(t, owned(t, dir, "g", 1))
	}
	if n := log.count("votes cannot be stored"); n != 1 {
		t.Errorf("%d alarms", n)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	stuck = dial(t, shop, addr, dir)
	stuck.seq = 1 << 20
	stuck.heartbeat(t, manyGuests(t, dir, rev)...)
	if n := log.count("votes are stored again"); n != 1 {
		t.Errorf("%d ends of the alarm", n)
	}
}

func manyGuests(t *testing.T, dir string, rev uint64) (list []ha.Record) {
	for i := range 50 {
		list = append(list, owned(t, dir, fmt.Sprint("guest", i), rev))
	}
	return list
}

// ignored says whether a heartbeat gets no acknowledgement; the connection is
// made anew then.
func (v *voter) ignored(t *testing.T, addr, dir string, renewals ...ha.Record) bool {
	t.Helper()
	v.say(t, renewals...)
	v.conn.SetTimeouts(500*time.Millisecond, time.Second)
	_, err := answer[ha.Ack](v)
	if err == nil {
		return false
	}
	v.conn.Close()
	again := dial(t, v.id, addr, dir)
	v.conn, v.in = again.conn, again.in
	return true
}

// fill takes all space that is left.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
