package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"vmctl/node/e2e/lab"
)

// claims are what the nodes say of themselves, as a user would see it: who runs
// the guest under which epoch, and which checkpoints the peer has committed.
type claims struct {
	mu     sync.Mutex
	owners map[uint64]string // of epochs
	saved  []saved           // in order of the reports
	judged int               // stints
	wrong  []string
}

// saved is a checkpoint as its owner reported it.
type saved struct {
	node            string
	epoch, sequence uint64
	taken, reported time.Time
}

// claimsEvery is how often the nodes are asked.
const claimsEvery = 250 * time.Millisecond

// watchClaims asks both nodes until ctx ends.
func (c *chaos) watchClaims(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	for _, h := range []*lab.Host{c.A, c.B} {
		tasks.Go(func() {
			ticker, client := time.NewTicker(claimsEvery), h.API()
			defer ticker.Stop()
			defer client.Close()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				bound, cancel := context.WithTimeout(ctx, time.Second)
				v, err := client.VM(bound, c.vm.UUID)
				cancel()
				if err != nil || v.Owner != h.Name || v.State != "running" {
					continue
				}
				s := saved{node: h.Name, epoch: v.Epoch, reported: time.Now()}
				if v.Checkpoint != nil {
					s.sequence, s.taken = v.Checkpoint.Sequence, v.Checkpoint.Time.Time
				}
				c.claims.note(s)
			}
		})
	}
}

// note takes one report of a node that says it runs the guest.
func (l *claims) note(s saved) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owners == nil {
		l.owners = map[uint64]string{}
	}
	if before, known := l.owners[s.epoch]; known && before != s.node {
		l.wrong = append(l.wrong, fmt.Sprintf("both %s and %s say that they run the guest under epoch %d", before, s.node, s.epoch))
	}
	l.owners[s.epoch] = s.node
	if n := len(l.saved); s.sequence != 0 && (n == 0 || l.saved[n-1].sequence != s.sequence || l.saved[n-1].epoch != s.epoch) {
		l.saved = append(l.saved, s)
	}
}

// judge says which of the guest's new stints began with less than the last
// checkpoint reported before it, and which claims cannot be.
func (l *claims) judge(stints []lab.Stint, counterAt func(time.Time) uint64) (wrong []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := max(l.judged, 1); i < len(stints); i++ {
		before, now := stints[i-1], stints[i]
		if before.Token != now.Token {
			continue // booted anew
		}
		for _, s := range l.saved {
			if s.taken.Before(before.First) || s.reported.After(now.First) {
				continue
			}
			if least := counterAt(s.taken); now.From < least {
				wrong = append(wrong, fmt.Sprintf("the guest went on on %s at counter %d, but checkpoint %d of epoch %d, which %s reported at %s, has counter %d",
					now.Node, now.From, s.sequence, s.epoch, s.node, s.reported.Format("15:04:05.000"), least))
			}
		}
	}
	l.judged = len(stints)
	wrong = append(wrong, l.wrong...)
	l.wrong = nil
	return wrong
}

// sum counts what was watched.
func (c *chaos) sum() string {
	resumed, booted := 0, 0
	stints := c.recorder.Stints()
	for i := 1; i < len(stints); i++ {
		if stints[i].Token == stints[i-1].Token {
			resumed++
		} else {
			booted++
		}
	}
	c.claims.mu.Lock()
	defer c.claims.mu.Unlock()
	return fmt.Sprintf("%d records of the guest heard; it was resumed elsewhere %d times and booted anew %d times; %d epochs, %d checkpoints reported",
		c.recorder.Records(), resumed, booted, len(c.claims.owners), len(c.claims.saved))
}

// A judge that cannot find fault proves nothing.
func TestClaimsAreJudged(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	stints := []lab.Stint{
		{Node: "a", First: at(1), Last: at(10), From: 1, To: 90, Token: "x"},
		{Node: "b", First: at(13), Last: at(20), From: 80, To: 160, Token: "x"},
		{Node: "b", First: at(30), Last: at(40), From: 1, To: 100, Token: "y"},
	}
	counterAt := func(t time.Time) uint64 { return uint64(t.Unix()) * 10 }
	for name, test := range map[string]struct {
		saved saved
		wrong int
	}{
		"an older checkpoint":                   {saved{"a", 1, 5, at(7), at(8)}, 0},
		"a newer checkpoint":                    {saved{"a", 1, 6, at(9), at(10)}, 1},
		"one that was never reported":           {saved{"a", 1, 6, at(9), at(14)}, 0},
		"the peer's, after it went on":          {saved{"b", 2, 1, at(14), at(15)}, 0},
		"the same epoch claimed by the other":   {saved{"b", 1, 1, at(14), at(15)}, 1},
		"before a boot, which loses the memory": {saved{"b", 2, 9, at(19), at(20)}, 0},
	} {
		var l claims
		l.note(saved{node: "a", epoch: 1, reported: at(2)})
		l.note(test.saved)
		if wrong := l.judge(stints, counterAt); len(wrong) != test.wrong {
			t.Errorf("%s: %v", name, wrong)
		}
		if again := l.judge(stints, counterAt); len(again) != 0 {
			t.Errorf("%s: judged twice: %v", name, again)
		}
	}
}
