package node

import (
	"strings"
	"testing"

	"vmctl/ha"
	"vmctl/node/api"
	"vmctl/vm"
)

// TestTooTight: a node that has not said what it has ends no alarm, and raises none.
func TestTooTight(t *testing.T) {
	for name, c := range map[string]struct {
		alone      bool
		mine, told vm.Size
		files      vm.Size // of the peer's tmpfs
		says       string
		known      bool
	}{
		"both can":                    {mine: 4 * vm.GiB, told: 4 * vm.GiB, known: true},
		"the peer cannot":             {mine: 4 * vm.GiB, told: vm.GiB, says: "b has to hold 1412MiB of guests and has 1GiB of memory: not all", known: true},
		"neither can":                 {mine: vm.GiB, told: vm.GiB, says: "a has to hold 1412MiB of guests and has 1GiB of memory; if", known: true},
		"the peer has not said":       {mine: 4 * vm.GiB},
		"this one cannot in any case": {mine: vm.GiB, says: "a has to hold", known: true},
		"the peer's tmpfs is small":   {mine: 4 * vm.GiB, told: 4 * vm.GiB, files: 1000 * vm.MiB, says: "b has to hold 1GiB of guests' memory and has a tmpfs of 1000MiB for it", known: true},
		"it is just large enough":     {mine: 4 * vm.GiB, told: 4 * vm.GiB, files: vm.GiB, known: true},
		"there is no peer":            {alone: true, mine: vm.MiB, known: true},
	} {
		members := []memberInfo{{Name: "a"}, {Name: "b"}}
		if c.alone {
			members = members[:1]
		}
		n := &Node{config: Config{Name: "a"}, members: &membership{self: "a", record: clusterRecord{Members: members}}, exchange: &exchange{theirs: nodeInfo{Memory: int64(c.told), Files: int64(c.files)}}}
		n.host.Memory = c.mine
		n.guests = newGuests(n)
		spec := vm.Spec{Name: "web", UUID: "u", Memory: vm.GiB, Accel: vm.AccelTCG, Protection: vm.Protection{Level: vm.ProtectResume}}
		n.guests.byID["web"] = &guest{n: n, owner: "a", record: guestRecord{Spec: spec, Run: true}}
		text, known := n.tooTight()
		if known != c.known || !strings.Contains(text, c.says) || (text == "") != (c.says == "") {
			t.Errorf("%s: %q, known %t; want %q, %t", name, text, known, c.says, c.known)
		}
	}
}

// TestSummaryTellsWhy: who asks whether he is protected hears why not.
func TestSummaryTellsWhy(t *testing.T) {
	why := &api.Replica{State: "outdated", Reason: "too little memory for checkpoints"}
	s := api.Status{VMs: []api.VM{{Name: "web", Run: true, Protection: api.Protection{Level: "resume"}, Replica: why}}, Cluster: &api.Cluster{Members: make([]api.Member, 2)}}
	const head = "0 of 1 protected guests are covered as they shall be; web has no complete replica"
	for _, want := range []string{head + ": too little memory for checkpoints", head} {
		if protected, text := summary(s); protected || text != want {
			t.Errorf("%t, %s; want %s", protected, text, want)
		}
		why.Reason = ""
	}
}

// TestSummaryOfOne: one guest is not spoken of as of several.
func TestSummaryOfOne(t *testing.T) {
	one := api.VM{Name: "web", Run: true, Protection: api.Protection{Level: "restart"}, Replica: &api.Replica{State: "synced"}}
	s := api.Status{VMs: []api.VM{one}, Cluster: &api.Cluster{Mode: string(ha.ModeNone), Members: make([]api.Member, 2)}}
	if protected, text := summary(s); protected || text != "1 guest is replicated, but without a third vote nothing is started by itself" {
		t.Errorf("%t, %s", protected, text)
	}
	s.VMs, s.Cluster.Mode, s.Cluster.Witness = append(s.VMs, one), "witness", &api.Witness{}
	if protected, text := summary(s); protected || text != "2 guests are replicated, but the witness cannot be reached" {
		t.Errorf("%t, %s", protected, text)
	}
}
