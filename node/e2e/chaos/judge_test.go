package chaos

import (
	"testing"
	"time"

	"vmctl/node/e2e/lab"
)

// A judge that lets everything pass proves nothing, nor one that lets nothing.
func TestBootsAreJudged(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	on := func(node, token string, first, last int) lab.Stint {
		return lab.Stint{Node: node, Token: token, First: at(first), Last: at(last)}
	}
	for name, test := range map[string]struct {
		stints []lab.Stint
		causes []cause
		wrong  int
	}{
		"resumed":                                       {[]lab.Stint{on("a", "x", 1, 10), on("b", "x", 13, 20)}, nil, 0},
		"booted without cause":                          {[]lab.Stint{on("a", "x", 1, 10), on("a", "y", 13, 20)}, nil, 1},
		"killed here, booted here":                      {[]lab.Stint{on("a", "x", 1, 10), on("a", "y", 13, 20)}, []cause{{at(10), "a", "kill-qemu"}}, 0},
		"killed before, booted without cause":           {[]lab.Stint{on("a", "x", 1, 10), on("a", "y", 13, 20)}, []cause{{at(5), "a", "kill-qemu"}}, 1},
		"the peer lost its power":                       {[]lab.Stint{on("a", "x", 1, 10), on("a", "y", 13, 20)}, []cause{{at(10), "b", "power-cut"}}, 1},
		"power lost here, booted there":                 {[]lab.Stint{on("a", "x", 1, 10), on("b", "y", 13, 20)}, []cause{{at(10), "a", "power-cut"}}, 1},
		"power lost here twice, booted here in between": {[]lab.Stint{on("a", "x", 1, 10), on("b", "y", 13, 20)}, []cause{{at(10), "a", "power-cut"}, {at(12), "a", "power-cut"}}, 0},
		"killed there, booted there":                    {[]lab.Stint{on("a", "x", 1, 10), on("b", "y", 13, 20)}, []cause{{at(12), "b", "kill-qemu"}}, 0},
		"a user's stop, asked for anywhere":             {[]lab.Stint{on("a", "x", 1, 10), on("a", "y", 13, 20)}, []cause{{at(10), "", "stop"}}, 0},
	} {
		var j judge
		started := func(node string, from, to time.Time) bool { // as the hosts tell it: at 11, if at all
			return name == "power lost here twice, booted here in between" && node == "a" && from.Before(at(11)) && to.After(at(11))
		}
		if wrong := j.boots(test.stints, test.causes, started); len(wrong) != test.wrong {
			t.Errorf("%s: %v", name, wrong)
		}
	}
}
