package samples

import (
	"math"
	"slices"
)

// Quantile is the nearest rank; of an even number the median is the mean of the
// two in the middle.
func Quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	if q == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[max(0, int(math.Ceil(q*float64(n)))-1)]
}

// Median is the quantile of a half.
func Median(list []float64) float64 { return Quantile(list, 0.5) }

// Of are the values of those samples that are wanted.
func Of[T any](list []T, wanted func(T) bool, value func(T) float64) (values []float64) {
	for _, sample := range list {
		if wanted(sample) {
			values = append(values, value(sample))
		}
	}
	return values
}
