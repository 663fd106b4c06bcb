package recovery

import (
	"testing"
	"time"

	"vmctl/ha/golden"
)

func homing(p *Policy) { p.Failback = WhenSynced }

// TestDecisions plays short stories and compares every decision with the log
// under testdata.
func TestDecisions(t *testing.T) {
	for name, play := range map[string]func(b *bench){
		"priority": func(b *bench) {
			b.peers("batch", priority(-5))
			b.peers("db", priority(10))
			b.peers("web", nil)
			b.peerDies()
			b.take("batch", "web", "db")
			b.run(5 * second)
		},
		"after": func(b *bench) {
			b.peers("web", after("db", "cache"))
			b.peers("cache", nil)
			b.peers("db", nil)
			b.peerDies()
			b.take("web", "cache", "db")
			b.run(3 * second)
		},
		"after-on-peer": func(b *bench) {
			b.peers("db", nil)
			b.peers("web", after("db"))
			b.take("web") // handed over; the peer lives
			b.run(2 * second)
		},
		"priority-of-the-waiting": func(b *bench) {
			b.peers("db", priority(-1))
			b.peers("web", func(p *Policy) { p.Priority, p.After = 100, []string{"db"} })
			b.peers("mid", priority(50))
			b.peerDies()
			b.take("mid", "web", "db")
			b.run(5 * second)
		},
		"higher-never-comes": func(b *bench) {
			b.peers("db", priority(10))
			b.peers("web", nil)
			b.peerDies()
			b.take("web")
			b.run(4 * second)
		},
		"wait-has-a-bound": func(b *bench) {
			b.peers("db", nil)
			b.peers("web", after("db"))
			b.peerDies()
			b.take("web")
			b.run(125 * second)
		},
		"halves-of-a-cycle": func(b *bench) {
			b.peers("egg", after("hen"))
			b.peers("hen", after("egg"))
			b.peerDies()
			b.take("egg", "hen")
			b.run(3 * second)
		},
		"fails-on-every-start": func(b *bench) {
			b.peers("db", nil)
			b.peers("web", after("db"))
			b.fails["db"] = "QEMU says no"
			b.peerDies()
			b.take("db", "web")
			b.run(60 * second)
			b.say("-- the user starts db")
			b.fails["db"] = ""
			b.feed(Ordered{ID: "db"})
			b.run(3 * second)
		},
		"cannot-be-resumed": func(b *bench) {
			b.peers("db", nil)
			b.fails["db"] = "resume: wrong machine"
			b.peerDies()
			b.take("db")
			b.run(4 * second)
		},
		"dies-right-after-the-resume": func(b *bench) {
			b.peers("db", nil)
			b.peerDies()
			b.take("db")
			b.run(2 * second)
			b.say("-- db panics: the start counts as failed")
			b.facts["db"].Running = false
			b.tell("db")
			b.feed(Failed{ID: "db", How: Resume, Reason: "it panicked after 1 s"})
			b.run(15 * second)
			b.say("-- db crashes: its restart policy has the word")
			b.change("db", func(g *Guest) { g.Running = false })
			b.feed(Ended{ID: "db"})
			b.run(2 * second)
		},
		"restart-and-leave": func(b *bench) {
			b.peers("db", func(p *Policy) { p.Action = Restart })
			b.peers("app", func(p *Policy) { p.Action = Leave })
			b.peers("web", after("app"))
			b.peerDies()
			b.take("db", "app", "web")
			b.run(5 * second)
			b.say("-- the user starts app")
			b.feed(Ordered{ID: "app"})
			b.run(3 * second)
		},
		"handed-over": func(b *bench) {
			b.peers("db", func(p *Policy) { p.Action = Restart })
			b.peers("app", func(p *Policy) { p.Action = Leave })
			b.take("db", "app")
			b.run(2 * second)
		},
		"user-does-not-wait": func(b *bench) {
			b.peers("db", nil)
			b.peers("web", after("db"))
			b.peerDies()
			b.take("web")
			b.run(3 * second)
			b.say("-- the user starts web")
			b.feed(Ordered{ID: "web"})
			b.run(3 * second)
		},
		"own-guests-after-a-boot": func(b *bench) {
			b.facts["db"] = &Guest{ID: "db", Name: "db", Policy: policy(priority(1)), Run: true, Mine: true, Epoch: 3, Looking: true}
			b.facts["run"] = &Guest{ID: "run", Name: "run", Policy: policy(nil), Run: true, Mine: true, Epoch: 3, Looking: true}
			b.facts["web"] = &Guest{ID: "web", Name: "web", Policy: policy(after("db")), Run: true, Mine: true, Epoch: 1, Looking: true}
			b.facts["bad"] = &Guest{ID: "bad", Name: "bad", Policy: policy(nil), Run: true, Mine: true, Epoch: 1, Looking: true, GaveUp: "bad failed 3 times"}
			for _, id := range []string{"bad", "db", "run", "web"} {
				b.change(id, func(*Guest) {})
			}
			b.say("-- web and bad: nothing runs here; run: adopted")
			b.change("web", func(g *Guest) { g.Looking = false })
			b.change("bad", func(g *Guest) { g.Looking = false })
			b.change("run", func(g *Guest) { g.Looking, g.Running = false, true })
			b.run(second)
			b.change("db", func(g *Guest) { g.Looking = false })
			b.run(4 * second)
			b.say("-- the user stops bad, then starts it")
			b.change("bad", func(g *Guest) { g.Run = false })
			b.feed(Ordered{ID: "bad"})
			b.change("bad", func(g *Guest) { g.Run = true })
			b.run(3 * second)
		},
		"failback": func(b *bench) {
			b.peers("one", homing)
			b.peers("two", homing)
			b.peers("stays", nil)
			b.peerDies()
			b.take("one", "two", "stays")
			b.run(5 * second)
			b.peerIs(func(p *Peer) { p.Up, p.Maintenance = true, true })
			b.run(second)
			b.peerIs(func(p *Peer) { p.Maintenance = false })
			for _, name := range []string{"one", "two", "stays"} {
				b.change(name, func(g *Guest) { g.Synced = true })
			}
			b.run(30 * second)
			b.say("-- an alarm comes and goes: the settling time begins anew")
			b.feed(Health{Alarm: "the witness is not heard"})
			b.run(second)
			b.feed(Health{})
			b.run(70 * second)
		},
		"failback-fails": func(b *bench) {
			b.peers("one", homing)
			b.homeErr = "its last checkpoint was refused"
			b.peerDies()
			b.take("one")
			b.run(2 * second)
			b.peerIs(func(p *Peer) { p.Up = true })
			b.change("one", func(g *Guest) { g.Synced = true })
			b.run(6 * time.Minute)
			b.homeErr = ""
			b.run(10 * time.Minute)
		},
		"home-that-fails-again": func(b *bench) {
			b.peers("one", homing)
			for range 3 {
				b.peerDies()
				b.take("one")
				b.run(2 * second)
				b.peerIs(func(p *Peer) { p.Up = true })
				b.change("one", func(g *Guest) { g.Synced = true })
				b.run(5 * time.Minute)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			play(b)
			golden.Compare(t, name+".golden", b.log.String())
		})
	}
}
