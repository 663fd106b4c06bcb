package replicator

import (
	"cmp"
	"slices"
)

// span is a range of bytes, without its end.
type span struct{ from, to int64 }

// merge sorts spans and joins those that meet.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, s.to)
			continue
		}
		out = append(out, s)
	}
	return out
}

// subtract is what is left of whole without the holes, which are merged.
func subtract(whole span, holes []span) []span {
	var left []span
	for _, hole := range holes {
		if hole.to <= whole.from || hole.from >= whole.to {
			continue
		}
		if hole.from > whole.from {
			left = append(left, span{whole.from, hole.from})
		}
		whole.from = hole.to
	}
	if whole.from < whole.to {
		left = append(left, whole)
	}
	return left
}
