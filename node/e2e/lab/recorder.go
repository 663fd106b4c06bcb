package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Recorder watches from outside that never two QEMUs execute the guest: by the
// guest's own UDP records, told apart by the switch's port they come through,
// and by the processor time of the guest's vCPU threads on both hosts.
type Recorder struct {
	hosts  []*watched
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex
	last     Proof
	node     string    // through which the last record came
	heard    time.Time // when
	stints   []Stint   // in order
	overlaps []string  // what must not be
	started  []string  // what was not, though vCPU threads ran on both hosts
	heardOf  []mark    // every record
}

// mark is when a counter was heard.
type mark struct {
	at      time.Time
	counter uint64
}

// Stint is a time in which one host ran the guest.
type Stint struct {
	Node        string
	First, Last time.Time
	From, To    uint64 // counters
	Token       string
}

// Record begins to watch a guest.
func (l *Lab) Record(ctx context.Context, uuid string) (*Recorder, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &Recorder{cancel: cancel, hosts: []*watched{l.A.watch(uuid), l.B.watch(uuid)}}
	for _, h := range []*Host{l.A, l.B} {
		fd, err := l.sniff("p" + h.Name)
		if err != nil {
			cancel()
			return nil, err
		}
		r.tasks.Go(func() { r.listen(ctx, fd, h.Name) })
	}
	r.tasks.Go(func() { r.sample(ctx) })
	return r, nil
}

// listen takes the guest's records that come in through one port.
func (r *Recorder) listen(ctx context.Context, fd int, node string) {
	defer unix.Close(fd)
	packet := make([]byte, 4096)
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(fd, packet, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if body := recordOf(packet[:n]); body != nil {
			var proof Proof
			if json.Unmarshal(body, &proof) == nil && proof.Token != "" {
				r.note(node, proof)
			}
		}
	}
}

// note takes one record. A record through another port than the last begins a
// stint there; the hosts must take turns, with the same token unless the guest
// was booted anew.
func (r *Recorder) note(node string, proof Proof) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.heardOf = append(r.heardOf, mark{now, proof.Counter})
	if proof.Broken {
		r.overlaps = append(r.overlaps, fmt.Sprintf("%s: the guest on %s says that it is broken: %s", now.Format(time.StampMilli), node, proof.Reason))
	}
	n := len(r.stints)
	if n == 0 || r.stints[n-1].Node != node || r.stints[n-1].Token != proof.Token {
		if n >= 2 && r.stints[n-2].Node == node && r.stints[n-2].Token == proof.Token && proof.Counter > r.stints[n-2].To && now.Sub(r.stints[n-1].First) < 500*time.Millisecond {
			r.overlaps = append(r.overlaps, fmt.Sprintf("%s: records from %s and %s at the same time", now.Format(time.StampMilli), node, r.stints[n-1].Node))
		}
		r.stints = append(r.stints, Stint{Node: node, First: now, From: proof.Counter, Token: proof.Token})
		n++
	}
	s := &r.stints[n-1]
	if proof.Counter < s.To {
		r.overlaps = append(r.overlaps, fmt.Sprintf("%s: the guest on %s went back from counter %d to %d", now.Format(time.StampMilli), node, s.To, proof.Counter))
	}
	s.Last, s.To = now, proof.Counter
	r.last, r.node, r.heard = proof, node, now
}

// sampleEvery is how often vCPU threads are looked at. Hosts that take turns by
// the rules are at least four times as far apart.
const sampleEvery = 20 * time.Millisecond

// sample watches the processor time of the vCPU threads on both hosts.
func (r *Recorder) sample(ctx context.Context) {
	seen := map[string]moment{}
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	defer func() {
		for _, h := range r.hosts {
			h.close()
		}
	}()
	pids := map[string]int{}
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		busy := []look{}
		for _, h := range r.hosts {
			// While one is there no other counts: then its own end is all to look for.
			if pid := pids[h.name]; round%relook == 0 || pid == 0 && h.launched() || pid != 0 && round%5 == 0 && ended(pid) {
				pids[h.name] = h.process(ctx)
			}
			now, before := h.sees(pids[h.name]), seen[h.name]
			if now.used(before) {
				busy = append(busy, look{watched: h, pid: now.pid, ended: now.ended(before)})
			}
			seen[h.name] = now
		}
		if len(busy) == 2 {
			r.judge(time.Now(), busy)
		}
	}
}

// Last is the newest record, the host it came through, and when.
func (r *Recorder) Last() (Proof, string, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.node, r.heard
}

// Records is how many records were heard.
func (r *Recorder) Records() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.heardOf)
}

// CounterAt is the newest counter that was heard by then: whatever state the
// guest was saved in at that time or later has at least this.
func (r *Recorder) CounterAt(at time.Time) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.heardOf) - 1; i >= 0; i-- {
		if !r.heardOf[i].at.After(at) {
			return r.heardOf[i].counter
		}
	}
	return 0
}

// Stints are the times in which hosts ran the guest.
func (r *Recorder) Stints() []Stint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Stint(nil), r.stints...)
}

// Started is where vCPU threads ran on both hosts, but on one of them in a QEMU
// that has not executed the guest: why stands in it.
func (r *Recorder) Started() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.started...)
}

// Stop ends the watch and returns everything that must not have been.
func (r *Recorder) Stop() []string {
	r.cancel()
	r.tasks.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.overlaps
}

// WaitOn waits until the guest's records come through a host and returns the
// first stint there that began after a time.
func (r *Recorder) WaitOn(ctx context.Context, node string, after time.Time, bound time.Duration) (Stint, error) {
	var found Stint
	err := eventually(ctx, soon, bound, func() error {
		for _, s := range r.Stints() {
			if s.Node == node && s.First.After(after) {
				found = s
				return nil
			}
		}
		return fmt.Errorf("no records of the guest came from host %s within %s", node, bound)
	})
	return found, err
}
