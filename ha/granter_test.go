package ha

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		lease, stop, tick time.Duration
		ppm               int64
		want              time.Duration
	}{
		{2000 * ms, 300 * ms, 100 * ms, 1000, 2405 * ms}, // 2300 * 1.001/0.999 = 2304.6, rounded up, + 100
		{2000 * ms, 300 * ms, 100 * ms, 0, 2400 * ms},
		{1000 * ms, 0, 100 * ms, 100_000, 1323 * ms},
	} {
		got := Timing{Lease: c.lease, Stop: c.stop, Tick: c.tick, DriftPPM: c.ppm}.Window()
		if got != c.want {
			t.Errorf("window of %v+%v at %d ppm: %v, want %v", c.lease, c.stop, c.ppm, got, c.want)
		}
		exact := float64(c.lease+c.stop)*(1+float64(c.ppm)/1e6)/(1-float64(c.ppm)/1e6) + float64(c.tick)
		if float64(got) < exact {
			t.Errorf("window %v is below the exact %v", got, time.Duration(exact))
		}
	}
	if err := DefaultTiming().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Timing{Lease: time.Second}).Validate(); err == nil {
		t.Error("a timing without a heartbeat is accepted")
	}
}

func granterWith(r Record) *voter {
	v := newVoter(third, 1, DefaultTiming(), 0, nil)
	v.now = Time(10 * time.Second)
	if r.Guest != "" {
		v.add(r.Guest).rec = r
	}
	return &v
}

func TestRenewalRule(t *testing.T) {
	have := Record{Guest: "web", Epoch: 5, Rev: 3, Owner: nodeA, Standby: nodeB, Run: true}
	with := func(change func(*Record)) Record {
		r := have
		change(&r)
		return r
	}
	promised := with(func(r *Record) { r.Promised = 6 })
	for name, c := range map[string]struct {
		have, renewal Record
		from          NodeID
		want          Verdict
		then          uint64 // revision stored afterwards
	}{
		"unknown guest is adopted":         {Record{}, have, nodeA, Granted, 3},
		"same version":                     {have, have, nodeA, Granted, 3},
		"newer revision is stored":         {have, with(func(r *Record) { r.Rev = 4; r.Outdated = true }), nodeA, Granted, 4},
		"delayed revision is refused":      {have, with(func(r *Record) { r.Rev = 2 }), nodeA, StaleRevision, 3},
		"lower epoch is refused":           {have, with(func(r *Record) { r.Epoch = 4; r.Rev = 9 }), nodeA, StaleEpoch, 3},
		"higher epoch is adopted":          {have, with(func(r *Record) { r.Epoch = 6; r.Rev = 1; r.Owner = nodeB }), nodeB, Granted, 1},
		"same epoch of another is refused": {have, with(func(r *Record) { r.Owner = nodeB; r.Rev = 9 }), nodeB, WrongOwner, 3},
		"for somebody else":                {have, have, nodeB, WrongOwner, 3},
		"promised away":                    {promised, with(func(r *Record) { r.Rev = 4 }), nodeA, PromisedAway, 3},
		"promise ends with the epoch":      {promised, with(func(r *Record) { r.Epoch = 6; r.Rev = 1; r.Owner = nodeB }), nodeB, Granted, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := granterWith(c.have)
			grant := v.renew(c.from, c.renewal)
			if grant.Verdict != c.want || grant.OK != (c.want == Granted) {
				t.Errorf("got %+v, want %s", grant, c.want)
			}
			g := v.find("web")
			if g.rec.Rev != c.then {
				t.Errorf("revision %d is stored, want %d", g.rec.Rev, c.then)
			}
			if renewed := g.granted == v.now; renewed != grant.OK {
				t.Errorf("acknowledged %v but the wait was restarted: %v", grant.OK, renewed)
			}
			if !grant.OK && c.from == c.renewal.Owner && grant.Record != g.rec.shared() {
				t.Errorf("a refusal shows %+v, want %+v", grant.Record, g.rec)
			}
			if g.rec.Epoch == 6 && g.rec.Promised != 0 {
				t.Error("the promise outlived its epoch")
			}
		})
	}
}

func TestClaimRule(t *testing.T) {
	window := Time(DefaultTiming().Window())
	have := Record{Guest: "web", Epoch: 5, Owner: nodeA, Standby: nodeB, Arbiter: third, Run: true, Level: LevelResume}
	for name, c := range map[string]struct {
		change  func(*Record)
		from    NodeID
		epoch   uint64
		granted Time // age of the last acknowledgement
		force   bool
		want    Verdict
	}{
		"free":                   {nil, nodeB, 6, window + 1, false, ""},
		"lease alive":            {nil, nodeB, 6, window, false, LeaseAlive},
		"force respects leases":  {nil, nodeB, 6, window, true, LeaseAlive},
		"outdated":               {func(r *Record) { r.Outdated = true }, nodeB, 6, window + 1, false, ReplicaOutdated},
		"force ignores outdated": {func(r *Record) { r.Outdated = true }, nodeB, 6, window + 1, true, ""},
		"stopped":                {func(r *Record) { r.Run = false }, nodeB, 6, window + 1, false, Stopped},
		"unprotected":            {func(r *Record) { r.Level = LevelNone }, nodeB, 6, window + 1, false, Unprotected},
		"owner without lease":    {func(r *Record) { r.Arbiter = "" }, nodeB, 6, window + 1, false, OwnerUnleased},
		"owner's other witness":  {func(r *Record) { r.Arbiter = "w2" }, nodeB, 6, window + 1, false, OwnerUnleased},
		"a former peer":          {nil, "node-c", 6, window + 1, false, NotStandby},
		"its own":                {nil, nodeA, 6, window + 1, false, WrongOwner},
		"an epoch skipped":       {nil, nodeB, 7, window + 1, false, WrongEpoch},
		"removed, even by force": {func(r *Record) { r.Gone = true }, nodeB, 6, window + 1, true, Removed},
	} {
		t.Run(name, func(t *testing.T) {
			r := have
			if c.change != nil {
				c.change(&r)
			}
			v := granterWith(r)
			g := v.find("web")
			g.granted = v.now - c.granted
			if got, why := v.objection(g, c.from, c.epoch, c.force); got != c.want {
				t.Errorf("got %q (%s), want %q", got, why, c.want)
			}
		})
	}
}

func TestRestartedGranterWaits(t *testing.T) {
	v := newVoter(third, 2, DefaultTiming(), Time(50*time.Second), []Record{{Guest: "web", Epoch: 5, Owner: nodeA, Standby: nodeB, Arbiter: third, Run: true, Level: LevelResume}})
	v.now = Time(50*time.Second) + v.window
	if got, _ := v.objection(v.find("web"), nodeB, 6, false); got != JustStarted {
		t.Errorf("at the end of the window: %q, want %q", got, JustStarted)
	}
	v.now++
	if got, why := v.objection(v.find("web"), nodeB, 6, false); got != "" {
		t.Errorf("after the window: %q (%s)", got, why)
	}
}

func TestOldMessagesAreDropped(t *testing.T) {
	v := granterWith(Record{})
	for _, c := range []struct {
		boot, seq uint64
		want      bool
	}{{1, 5, true}, {1, 5, false}, {1, 4, false}, {1, 6, true}, {2, 1, true}, {1, 7, false}, {2, 2, true}} {
		if got := v.fresh(nodeA, c.boot, c.seq); got != c.want {
			t.Errorf("message %d.%d: %v, want %v", c.boot, c.seq, got, c.want)
		}
	}
	if !v.fresh(nodeB, 1, 1) {
		t.Error("another sender's messages are counted together")
	}
}

// A refusal is final for its claim, whatever changes afterwards.
func TestRefusalIsFinal(t *testing.T) {
	w, err := NewWitness(WitnessSetup{Self: third, Boot: 4, Timing: DefaultTiming(), Records: []Record{
		{Guest: "web", Epoch: 5, Owner: nodeA, Standby: nodeB, Arbiter: third, Run: true, Level: LevelResume},
	}})
	if err != nil {
		t.Fatal(err)
	}
	claim := func(at time.Duration, boot, id, to uint64) (answered, ok bool) {
		for _, a := range w.Step(Time(at), Received{Message: Claim{From: nodeB, Boot: boot, Seq: 1, ID: id, To: to, Guest: "web", Prior: 5, Epoch: 6}}) {
			if s, is := a.(Send); is {
				return true, s.Message.(ClaimReply).OK
			}
		}
		return false, false
	}
	for i, c := range []struct {
		at           time.Duration
		boot, id, to uint64
		answered, ok bool
	}{
		{time.Second, 1, 1, 4, true, false},       // restart wait
		{10 * time.Second, 1, 1, 4, true, false},  // the same claim again
		{10 * time.Second, 1, 2, 3, true, false},  // for an earlier witness
		{10 * time.Second, 1, 1, 4, false, false}, // older than the newest
		{10 * time.Second, 2, 1, 4, true, true},   // a new one
		{11 * time.Second, 2, 1, 4, true, true},   // repeated: granted again
		{11 * time.Second, 1, 9, 4, false, false}, // of an earlier incarnation
		{11 * time.Second, 3, 1, 99, true, true},  // after a restart of the new owner
	} {
		answered, ok := claim(c.at, c.boot, c.id, c.to)
		if answered != c.answered || ok != c.ok {
			t.Errorf("claim %d: answered %v ok %v, want %v %v", i, answered, ok, c.answered, c.ok)
		}
	}
	want := Record{Guest: "web", Epoch: 6, Owner: nodeB, Standby: nodeA, Arbiter: third, Run: true, Level: LevelResume, Outdated: true}
	if got := w.Records()[0]; got != want {
		t.Errorf("stored %+v, want %+v", got, want)
	}
}
