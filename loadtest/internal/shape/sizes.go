package shape

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// A Size is a length of payloads, and how often it occurs in comparison with the others.
type Size struct {
	Bytes, Weight int
}

// ParseSizes reads sizes such as "64:9,4096:1": nine of ten messages have 64 bytes.
func ParseSizes(text string) ([]Size, error) {
	var sizes []Size
	for part := range strings.SplitSeq(text, ",") {
		bytes, weight, weighted := strings.Cut(strings.TrimSpace(part), ":")
		s := Size{Weight: 1}
		var err error
		if s.Bytes, err = strconv.Atoi(bytes); err == nil && weighted {
			s.Weight, err = strconv.Atoi(weight)
		}
		if err != nil || s.Weight < 1 {
			return nil, fmt.Errorf("%q is no size, want BYTES or BYTES:WEIGHT, such as 64:9", part)
		}
		sizes = append(sizes, s)
	}
	return sizes, nil
}

// FormatSizes writes sizes as ParseSizes reads them.
func FormatSizes(sizes []Size) string {
	var parts []string
	for _, s := range sizes {
		parts = append(parts, fmt.Sprintf("%d:%d", s.Bytes, s.Weight))
	}
	return strings.Join(parts, ",")
}

// Sizes chooses the sizes of messages.
type Sizes struct {
	all   []Size
	total int
}

// NewSizes makes a choice of at least one size.
func NewSizes(all []Size) Sizes {
	s := Sizes{all: all}
	for _, v := range all {
		s.total += v.Weight
	}
	return s
}

// Most returns the largest size.
func (s *Sizes) Most() (most int) {
	for _, v := range s.all {
		most = max(most, v.Bytes)
	}
	return most
}

// Pick chooses the size of the next message. It asks rng only if there are several.
func (s *Sizes) Pick(rng *rand.Rand) int {
	if len(s.all) == 1 {
		return s.all[0].Bytes
	}
	n := rng.IntN(s.total)
	for _, v := range s.all {
		if n -= v.Weight; n < 0 {
			return v.Bytes
		}
	}
	return s.all[0].Bytes // unreachable
}
