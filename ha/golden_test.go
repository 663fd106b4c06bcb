package ha

import (
	"testing"
	"time"

	"vmctl/ha/golden"
)

const second = time.Second

// TestDecisions plays short stories and compares every decision, and every
// reason given for not deciding, with the log under testdata.
func TestDecisions(t *testing.T) {
	for name, story := range map[string]struct {
		mode Mode
		play func(b *bench)
	}{
		"power-cut": {ModeWitness, func(b *bench) {
			b.guest()
			b.stop(nodeA)
			b.run(4 * second)
			b.back(nodeA)
			b.run(second)
			b.inSync(nodeB, nodeA)
			b.run(second)
		}},
		"cable-cut": {ModeWitness, func(b *bench) {
			b.guest()
			b.part(nodeA, nodeB)
			b.run(second)
			b.feed(nodeA, ReplicaState{Guest: "web", Epoch: 1})
			b.run(3 * second)
			b.join(nodeA, nodeB)
			b.run(second)
			b.inSync(nodeA, nodeB)
			b.run(second)
		}},
		"isolated-owner": {ModeWitness, func(b *bench) {
			b.guest()
			b.part(nodeA, nodeB)
			b.part(nodeA, third)
			b.run(4 * second)
			b.join(nodeA, third)
			b.run(second)
		}},
		"outdated": {ModeWitness, func(b *bench) {
			b.guest()
			b.feed(nodeA, ReplicaState{Guest: "web", Epoch: 1})
			b.run(second)
			b.stop(nodeA)
			b.run(4 * second)
			b.feed(nodeB, Promote{ID: 2, Guest: "web", ConfirmPeerOff: true})
			b.feed(nodeB, Promote{ID: 3, Guest: "web", ConfirmPeerOff: true, AcceptOutdated: true})
			b.run(second)
		}},
		"outdated-only-the-witness-knows": {ModeWitness, func(b *bench) {
			b.guest()
			b.part(nodeA, nodeB)
			b.feed(nodeA, ReplicaState{Guest: "web", Epoch: 1})
			b.run(second)
			b.stop(nodeA)
			b.run(4 * second)
			b.feed(nodeB, Promote{ID: 2, Guest: "web", ConfirmPeerOff: true})
			b.run(second)
			b.feed(nodeB, Promote{ID: 3, Guest: "web", ConfirmPeerOff: true, AcceptOutdated: true})
			b.run(second)
		}},
		"no-third-vote": {ModeNone, func(b *bench) {
			b.guest()
			b.feed(nodeB, Promote{ID: 2, Guest: "web", ConfirmPeerOff: true})
			b.stop(nodeA)
			b.run(4 * second)
			b.feed(nodeB, Promote{ID: 3, Guest: "web"})
			b.feed(nodeB, Promote{ID: 4, Guest: "web", ConfirmPeerOff: true})
			b.run(second)
			b.back(nodeA)
			b.run(second)
		}},
		"no-third-vote-cold-start": {ModeNone, func(b *bench) {
			b.guest()
			b.stop(nodeA)
			b.stop(nodeB)
			b.run(second)
			b.back(nodeA)
			b.run(12 * second)
		}},
		"witness-lost-then-peer": {ModeWitness, func(b *bench) {
			b.guest()
			b.stop(third)
			b.run(4 * second)
			b.stop(nodeA)
			b.run(4 * second)
			b.feed(nodeB, Promote{ID: 2, Guest: "web", ConfirmPeerOff: true})
			b.run(second)
			b.back(third)
			b.run(second)
		}},
		"owner-alone": {ModeWitness, func(b *bench) {
			b.guest()
			b.stop(third)
			b.stop(nodeB)
			b.run(4 * second)
			b.feed(nodeA, Promote{ID: 2, Guest: "web", ConfirmPeerOff: true})
			b.run(second)
			b.back(third)
			b.run(second)
		}},
		"add-and-remove-witness": {ModeNone, func(b *bench) {
			b.guest()
			c := b.cluster[nodeA]
			c.Gen, c.By, c.Mode, c.Witness = 2, nodeB, ModeWitness, third
			b.feed(nodeB, SetCluster{ID: 2, Cluster: c})
			b.run(second)
			c.Gen, c.Mode, c.Witness = 3, ModeNone, ""
			b.feed(nodeB, SetCluster{ID: 3, Cluster: c})
			b.run(second)
			b.feed(nodeB, SetCluster{ID: 4, Cluster: c})
		}},
		"handover": {ModeWitness, func(b *bench) {
			b.guest()
			b.feed(nodeA, Handover{ID: 2, Guest: "web"})
			b.run(second)
			b.feed(nodeA, Handover{ID: 3, Guest: "web"})
		}},
		"stop-and-remove": {ModeWitness, func(b *bench) {
			b.guest()
			b.feed(nodeB, SetRun{ID: 2, Guest: "web"})
			b.feed(nodeA, SetRun{ID: 3, Guest: "web"})
			b.run(second)
			b.stop(third)
			b.feed(nodeA, Forget{ID: 4, Guest: "web"})
			b.run(second)
			b.back(third)
			b.run(second)
		}},
		"store-full-at-claim": {ModeWitness, func(b *bench) {
			b.guest()
			b.broken[nodeB] = true
			b.stop(nodeA)
			b.run(4 * second)
			b.broken[nodeB] = false
			b.run(second)
		}},
	} {
		t.Run(name, func(t *testing.T) { tell(t, name, story.mode, story.play) })
	}
}

// tell plays a story and compares its log.
func tell(t *testing.T, name string, mode Mode, play func(b *bench)) {
	b := newBench(t, mode)
	play(b)
	golden.Compare(t, name+".golden", b.log.String())
}
