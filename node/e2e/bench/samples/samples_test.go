package samples

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
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
		if got := Quantile(test.list, test.q); got != test.want {
			t.Errorf("quantile %v of %v: got %v, want %v", test.q, test.list, got, test.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

type sample struct {
	Of   string  `json:"of"`
	Took float64 `json:"took"`
}

// What one invocation wrote, the next goes on with.
func TestSamplesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "samples")
	if none, err := Read[sample](path); err != nil || len(none) != 0 {
		t.Fatalf("a file that is not there: %v, %v", none, err)
	}
	want := []sample{{"a", 1}, {"b", 2}, {"a", 3}}
	for _, s := range want {
		if err := Append(path, s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read[sample](path)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	values := Of(got, func(s sample) bool { return s.Of == "a" }, func(s sample) float64 { return s.Took })
	if !slices.Equal(values, []float64{1, 3}) {
		t.Errorf("got %v", values)
	}
	if err := os.WriteFile(path, []byte("{\"of\":\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read[sample](path); err == nil {
		t.Error("a torn file is read")
	}
}

// TestMeasure: samples are begun anew or gone on with, and what was measured
// before a failure has its page.
func TestMeasure(t *testing.T) {
	out := filepath.Join(t.TempDir(), "page")
	failure := errors.New("the machine stops")
	report := func(all []int) string { return fmt.Sprint(all) }
	for _, step := range []struct {
		more   bool
		adds   []int
		err    error
		page   string
		absent bool
	}{
		{err: failure, absent: true},
		{adds: []int{1, 2}, page: "[1 2]"},
		{more: true, adds: []int{3}, err: failure, page: "[1 2 3]"},
		{adds: []int{4}, page: "[4]"},
	} {
		err := Measure(out, step.more, func(raw string) error {
			for _, n := range step.adds {
				if err := Append(raw, n); err != nil {
					return err
				}
			}
			return step.err
		}, report)
		page, missing := os.ReadFile(out + ".md")
		if !errors.Is(err, step.err) || string(page) != step.page || os.IsNotExist(missing) != step.absent {
			t.Errorf("%+v: %v, page %q, %v", step, err, page, missing)
		}
	}
}
