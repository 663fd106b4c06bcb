package vm

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Size is a number of bytes that people write as "512M" or "1.5GiB".
//
// Units are powers of 1024, with or without "iB"; "MB" and the like are
// refused because half of the world reads them as powers of 1000. A number
// without a unit is bytes. Its text form is exact, so it survives a round trip.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
	PiB Size = 1 << 50
)

var units = []struct {
	letter string
	size   Size
}{{"P", PiB}, {"T", TiB}, {"G", GiB}, {"M", MiB}, {"K", KiB}}

// ParseSize reads a size such as "512M", "1GiB", "1.5G" or "1048576".
func ParseSize(text string) (Size, error) {
	text = strings.TrimSpace(text)
	digits := strings.TrimRight(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ")
	unit, err := parseUnit(strings.TrimSpace(text[len(digits):]))
	if err != nil {
		return 0, fmt.Errorf("size %q: %w", text, err)
	}
	if digits == "" || len(digits) > 24 || strings.Trim(digits, "0123456789.") != "" {
		return 0, fmt.Errorf("size %q is not a number with a unit such as 512M or 1GiB", text)
	}
	value, ok := new(big.Rat).SetString(digits)
	if !ok {
		return 0, fmt.Errorf("size %q is not a number with a unit such as 512M or 1GiB", text)
	}
	value.Mul(value, new(big.Rat).SetInt64(int64(unit)))
	if !value.IsInt() {
		return 0, fmt.Errorf("size %q is not a whole number of bytes", text)
	}
	if !value.Num().IsInt64() {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	return Size(value.Num().Int64()), nil
}

func parseUnit(unit string) (Size, error) {
	upper := strings.ToUpper(unit)
	if upper == "" || upper == "B" {
		return 1, nil
	}
	for _, u := range units {
		switch upper {
		case u.letter, u.letter + "IB":
			return u.size, nil
		case u.letter + "B":
			return 0, fmt.Errorf("unit %s is ambiguous, write %s or %siB", unit, u.letter, u.letter)
		}
	}
	return 0, fmt.Errorf("unknown unit %q, use K, M, G or T", unit)
}

// String gives the size in the largest unit that divides it, so it is exact.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.letter + "iB"
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// qemu writes the size for QEMU, which knows K, M, G but not MiB.
func (s Size) qemu() string {
	return strings.TrimSuffix(s.String(), "iB")
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	size, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = size
	return nil
}

// UnmarshalJSON takes a string with a unit, or a number of bytes.
func (s *Size) UnmarshalJSON(data []byte) error {
	text := string(data)
	if text == "null" {
		return nil
	}
	if strings.HasPrefix(text, `"`) {
		unquoted, err := strconv.Unquote(text)
		if err != nil {
			return fmt.Errorf("size %s is not a string", text)
		}
		text = unquoted
	}
	return s.UnmarshalText([]byte(text))
}

// UnmarshalYAML reports the line of a bad size and lets the decoder go on, so
// that all mistakes of a file are shown at once.
func (s *Size) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: a size such as 512M is expected here", node.Line)}}
	}
	if err := s.UnmarshalText([]byte(node.Value)); err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %v", node.Line, err)}}
	}
	return nil
}

// add sums sizes and stops at the largest one instead of wrapping around.
func (s Size) add(other Size) Size {
	if other > 0 && s > math.MaxInt64-other {
		return math.MaxInt64
	}
	return s + other
}
