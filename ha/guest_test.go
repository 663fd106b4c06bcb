package ha

import "testing"

// A copy, into memory that was used before, shares no part with what it is a
// copy of, nor do two of its guests.
func TestCopiesOfGuestsShareNothing(t *testing.T) {
	table := voter{node: true}
	for _, id := range []GuestID{"a", "b", "c", "d"} {
		table.add(id).hold.settled = uint64(id[0])
	}
	var copied, second voter
	check := func(what string, want string) {
		t.Helper()
		table.copyTo(&copied)
		copied.copyTo(&second)
		owners := map[*part]bool{}
		for _, v := range []*voter{&table, &copied, &second} {
			if len(v.guests) != len(want) {
				t.Fatalf("%s: %d guests, not %d", what, len(v.guests), len(want))
			}
			for i := range v.guests {
				g := &v.guests[i]
				if g.rec.Guest != GuestID(want[i]) || g.hold.settled != uint64(want[i]) {
					t.Errorf("%s: guest %d is %s with the part of %c", what, i, g.rec.Guest, rune(g.hold.settled))
				}
				if owners[g.part] {
					t.Errorf("%s: a part of two guests", what)
				}
				owners[g.part] = true
			}
		}
	}
	check("four", "abcd")
	table.remove("b")
	check("one less", "acd")
	copied.remove("a") // what lies beyond its end is reused by the next copy
	copied.remove("d")
	check("after removals in the copy", "acd")
	table.add("b").hold.settled = 'b'
	table.add("e").hold.settled = 'e'
	check("more again", "abcde")
	witness := voter{}
	if witness.add("a"); witness.guests[0].part != nil || cap(witness.guests) != 1 {
		t.Error("a witness has more than it needs")
	}
}
