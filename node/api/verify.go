package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
)

// Verification is how far a comparison of owner and replica is, or how it ended.
// State is one of comparing, repairing, equal, repaired.
type Verification struct {
	VM             string `json:"vm"`
	State          string `json:"state"`
	Time           Time   `json:"time"` // of its beginning, or of the last progress
	ComparedBytes  int64  `json:"compared_bytes"`
	TotalBytes     int64  `json:"total_bytes"`
	DifferedBytes  int64  `json:"differed_bytes"`  // proved before the repair began
	RepairedBytes  int64  `json:"repaired_bytes"`  // sent by the repair, which compares everything
	UnsettledBytes int64  `json:"unsettled_bytes"` // written too often to be judged
}

// The states of a Verification.
const (
	VerifyComparing = "comparing"
	VerifyRepairing = "repairing"
	VerifyEqual     = "equal"
	VerifyRepaired  = "repaired"
)

// Over says that it has ended.
func (v Verification) Over() bool { return v.State == VerifyEqual || v.State == VerifyRepaired }

// Verifier compares replicas with their owners. tell hears the progress and may
// be called often.
type Verifier interface {
	Verify(ctx context.Context, name string, tell func(Verification)) (Verification, error)
}

// verify streams one JSON object a line: the progress, then the outcome or an
// error.
func (b *Backend) verify(w http.ResponseWriter, r *http.Request) {
	encoder := json.NewEncoder(w)
	flusher := http.NewResponseController(w)
	begun := false
	say := func(line any) {
		if !begun {
			w.Header().Set("Content-Type", "application/x-ndjson")
			begun = true
		}
		if encoder.Encode(line) == nil {
			_ = flusher.Flush()
		}
	}
	v, err := b.Verifier.Verify(r.Context(), r.PathValue("vm"), func(v Verification) { say(v) })
	switch {
	case err != nil && !begun:
		b.fail(w, r, err)
	case err != nil:
		say(map[string]*Error{"error": AsError(err)}) // the status is sent already
	default:
		say(v)
	}
}

// Verify compares a guest's replica with its disks and has it repaired. each is
// called with the progress, and last with the outcome.
func (c *Client) Verify(ctx context.Context, name string, each func(Verification) error) (last Verification, err error) {
	path, err := path("vms", name, "/verify")
	if err != nil {
		return last, err
	}
	response, err := c.open(ctx, http.MethodPost, path, nil, nil)
	if err != nil {
		return last, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		var line struct {
			Verification
			Error *Error `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return last, Errorf(Failed, "read the progress of the verification: %v", err)
		}
		if line.Error != nil {
			return last, line.Error
		}
		last = line.Verification
		if err := each(last); err != nil {
			return last, err
		}
	}
	if ctx.Err() != nil {
		return last, ctx.Err()
	}
	if !last.Over() {
		return last, Errorf(Unreachable, "the agent stopped telling how far the verification is").
			WithHint("See `vmctl vm show %s`.", name)
	}
	return last, nil
}
