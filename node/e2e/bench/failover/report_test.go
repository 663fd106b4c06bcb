package main

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vmctl/ha/golden"
)

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[99-i] = float64(i + 1)
	}
	for _, test := range []struct {
		list    []float64
		q, want float64
	}{
		{[]float64{3, 1, 2}, 0.5, 2}, {[]float64{4, 1, 2, 3}, 0.5, 2.5}, {[]float64{2, 1}, 0.99, 2}, {[]float64{7}, 0.99, 7},
		{[]float64{7}, 1, 7}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0.5, 50.5},
	} {
		if got := quantile(test.list, test.q); got != test.want {
			t.Errorf("quantile %v of %v: got %v, want %v", test.q, test.list, got, test.want)
		}
	}
	if !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("the median of nothing is a number")
	}
}

// samples are three rounds of all.
func samples() (list []Sample) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, answer := range []float64{2.7, 2.5, 2.6} {
		list = append(list,
			Sample{Run: "r", Round: i, Time: at, Of: vmctl, From: "a", To: "b", Answer: answer, HTTP: answer + 0.05, Record: answer - 0.1, Lost: answer - 2.4, Ran: 0.1, Waited: 0.02, Decided: 2.3, Running: 2.4},
			Sample{Run: "r", Round: i, Time: at, Of: pacemakerDefault, From: "a", To: "b", Answer: 6 * answer, HTTP: 6*answer + 0.1, Record: 6 * answer, Lost: 100, Fencing: 7, Fenced: 7.25, Ran: 5, Waited: 0.5, Running: 9},
		)
	}
	return list
}

func TestReport(t *testing.T) {
	golden.Compare(t, "report.golden", report(samples(), "pacemaker 2.1, corosync 3.1"))
}

// What one invocation wrote, the next goes on with.
func TestSamplesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "samples")
	if none, err := readSamples(path); err != nil || len(none) != 0 {
		t.Fatalf("a file that is not there: %v, %v", none, err)
	}
	want := samples()
	for _, s := range want {
		if err := s.append(path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readSamples(path)
	if err != nil || len(got) != len(want) || got[1] != want[1] || count(got, vmctl) != 3 {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("{\"of\":\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readSamples(path); err == nil {
		t.Error("a torn file is read")
	}
}
