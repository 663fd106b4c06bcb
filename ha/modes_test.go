package ha

import "testing"

// TestModes plays stories of the third votes that need no third machine.
func TestModes(t *testing.T) {
	for name, story := range map[string]struct {
		mode Mode
		play func(b *bench)
	}{
		"fence-power-cut": {ModeFence, func(b *bench) {
			b.guest()
			b.stop(nodeA)
			b.run(9 * second)
			b.back(nodeA)
			b.run(second)
		}},
		"fence-cable-cut": {ModeFence, func(b *bench) { // the owner goes first
			b.guest()
			b.part(nodeA, nodeB)
			b.run(second)
			b.feed(nodeA, ReplicaState{Guest: "web", Epoch: 1})
			b.run(3 * second)
			b.back(nodeB) // the cable is still cut
			b.run(15 * second)
			b.join(nodeA, nodeB)
			b.run(second)
			b.inSync(nodeA, nodeB)
			b.run(second)
		}},
		"fence-device-fails": {ModeFence, func(b *bench) {
			b.guest()
			b.device = func(NodeID) string { return "the management board does not answer" }
			b.stop(nodeA)
			b.run(12 * second)
			b.device = func(NodeID) string { return "" }
			b.run(10 * second)
		}},
		"fence-device-fails-owner-back": {ModeFence, func(b *bench) { // the alarm ends with its reason
			b.guest()
			b.device = func(NodeID) string { return "the management board does not answer" }
			b.part(nodeA, nodeB)
			b.run(9 * second)
			b.join(nodeA, nodeB)
			b.run(second)
		}},
		"fence-owner-back-alone": {ModeFence, func(b *bench) { // it cannot know whether B went on
			b.guest()
			b.stop(nodeA)
			b.stop(nodeB)
			b.run(second)
			b.back(nodeA)
			b.run(15 * second)
			b.feed(nodeA, Promote{ID: 2, Guest: "web", ConfirmPeerOff: true})
			b.run(second)
			b.back(nodeB)
			b.run(second)
		}},
		"fence-outdated-owner-back-alone": {ModeFence, func(b *bench) { // B cannot have gone on
			b.guest()
			b.feed(nodeA, ReplicaState{Guest: "web", Epoch: 1})
			b.run(second)
			b.stop(nodeB)
			b.stop(nodeA)
			b.back(nodeA)
			b.run(12 * second)
		}},
		"fence-none-and-back": {ModeNone, func(b *bench) {
			b.guest()
			c := b.cluster[nodeA]
			c.Gen, c.Mode = 2, ModeFence
			b.feed(nodeB, SetCluster{ID: 2, Cluster: c})
			b.run(second)
			c.Gen, c.Mode = 3, ModeNone
			b.feed(nodeB, SetCluster{ID: 3, Cluster: c})
			b.run(second)
		}},
		"bias-owner-dies": {ModeBias, func(b *bench) {
			b.guest()
			b.stop(nodeA)
			b.run(4 * second)
			b.back(nodeA)
			b.run(second)
		}},
		"bias-cable-cut": {ModeBias, func(b *bench) {
			b.guest()
			b.part(nodeA, nodeB)
			b.run(4 * second)
			b.join(nodeA, nodeB)
			b.run(second)
		}},
		"bias-node-dies": {ModeBias, func(b *bench) {
			b.guest()
			b.stop(nodeB)
			b.run(4 * second)
			b.feed(nodeA, Promote{ID: 2, Guest: "web", ConfirmPeerOff: true})
			b.run(second)
			b.part(nodeA, nodeB)
			b.back(nodeB) // it must not take over what it did not hear of
			b.run(5 * second)
			b.join(nodeA, nodeB)
			b.run(second)
		}},
		"bias-handover": {ModeBias, func(b *bench) {
			b.guest()
			b.feed(nodeA, Handover{ID: 2, Guest: "web"})
			b.run(second)
			b.inSync(nodeB, nodeA)
			b.run(second)
			b.feed(nodeB, Handover{ID: 3, Guest: "web"})
			b.run(second)
			b.stop(nodeB)
			b.run(3 * second)
		}},
		"bias-from-witness": {ModeWitness, func(b *bench) {
			b.guest()
			c := b.cluster[nodeA]
			c.Gen, c.Mode, c.Witness, c.Bias = 2, ModeBias, "", nodeB
			b.feed(nodeA, SetCluster{ID: 2, Cluster: c})
			b.run(second)
			b.stop(nodeA)
			b.run(4 * second)
		}},
	} {
		t.Run(name, func(t *testing.T) { tell(t, name, story.mode, story.play) })
	}
}
