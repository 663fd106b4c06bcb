package node

import (
	"testing"

	"vmctl/node/wire"
)

// A peer of the version before says nothing of its replica, and an owner of the
// version before does not listen.
func TestOpenOneVersionBack(t *testing.T) {
	silent, err := wire.Encode(struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	answer := openAnswer{}
	if err := wire.Decode(silent, &answer); err != nil || answer.Replica != nil {
		t.Errorf("%+v, %v", answer, err)
	}
	said, err := wire.Encode(openAnswer{Replica: []byte("which")})
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.Decode(said, &struct{}{}); err != nil {
		t.Errorf("an owner of the version before: %v", err)
	}
	if err := wire.Decode(said, &answer); err != nil || string(answer.Replica) != "which" {
		t.Errorf("%+v, %v", answer, err)
	}
}
