package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
)

// verifier says how far it is, and ends.
type verifier struct {
	says []Verification
	err  error
}

func (v *verifier) Verify(_ context.Context, name string, tell func(Verification)) (Verification, error) {
	for i := range v.says {
		v.says[i].VM = name
		if i < len(v.says)-1 || v.err != nil {
			tell(v.says[i])
		}
	}
	if v.err != nil || len(v.says) == 0 {
		return Verification{}, v.err
	}
	return v.says[len(v.says)-1], nil
}

func TestVerify(t *testing.T) {
	comparing := Verification{State: VerifyComparing, ComparedBytes: 1, TotalBytes: 2}
	equal := Verification{State: VerifyEqual, ComparedBytes: 2, TotalBytes: 2}
	for _, test := range []struct {
		name   string
		does   verifier
		states []string
		code   Code
	}{
		{"equal", verifier{says: []Verification{comparing, comparing, equal}}, []string{"comparing", "comparing", "equal"}, ""},
		{"refused", verifier{err: Errorf(Conflict, "stopped")}, nil, Conflict},
		{"fails on the way", verifier{says: []Verification{comparing}, err: Errorf(Unsafe, "x")}, []string{"comparing"}, Unsafe},
		{"cut off", verifier{says: []Verification{comparing}}, []string{"comparing"}, Unreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fake{verifier: &test.does}
			c := clientOf(t, serve(t, f))
			var states []string
			last, err := c.Verify(t.Context(), "web", func(v Verification) error {
				if v.VM != "web" {
					t.Errorf("of %q", v.VM)
				}
				states = append(states, v.State)
				return nil
			})
			if !slices.Equal(states, test.states) {
				t.Errorf("told %v", states)
			}
			if test.code == "" && (err != nil || last.ComparedBytes != 2) {
				t.Errorf("%+v, %v", last, err)
			}
			if test.code != "" && codeOf(err).Code != test.code {
				t.Errorf("failed with %v", err)
			}
		})
	}
}

// The request goes to the guest's owner.
func TestVerifyAtTheOwner(t *testing.T) {
	f := &fake{verifier: &verifier{}, route: func(string) (http.RoundTripper, error) { return nil, Errorf(Unreachable, "owner away") }}
	_, err := clientOf(t, serve(t, f)).Verify(t.Context(), "web", func(Verification) error { return errors.New("told") })
	if codeOf(err).Code != Unreachable {
		t.Errorf("%v", err)
	}
}
