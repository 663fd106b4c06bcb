package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// measure makes the parts that are asked for.
func measure(ctx context.Context, b *bench) error {
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{{"copy", b.copying}, {"finders", b.finders}, {"pauses", b.pauses}, {"many", b.many}} {
		if !slices.Contains(strings.Split(*parts, ","), part.name) || time.Since(b.began) > *budget {
			continue
		}
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}
