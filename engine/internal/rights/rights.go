// Package rights decides which IDs a client may bind. It is pure: it does no I/O, takes no lock and
// reads no clock.
package rights

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"distmsg/codec"
)

// Patterns are compiled patterns of IDs. A pattern is an ID, or a prefix followed by *. Patterns
// are immutable, and any goroutine may use them. A nil *Patterns matches every ID.
type Patterns struct {
	exact    map[string]struct{}
	prefixes []string // sorted, and none of them begins with another
	text     string   // the patterns, for people
}

// Compile compiles a list of patterns. A list that is nil matches every ID, and one that is empty
// but not nil matches none. It returns an error for a pattern that no ID can match.
func Compile(list []string) (*Patterns, error) {
	if list == nil || slices.Contains(list, "*") {
		return nil, nil
	}
	p := &Patterns{text: describe(list)}
	for _, pattern := range list {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		switch {
		case pattern == "":
			return nil, fmt.Errorf("a pattern is empty; write * for every ID")
		case len(prefix) > codec.MaxID:
			return nil, fmt.Errorf("the pattern %.20q… is longer than an ID may be (%d bytes)", pattern, codec.MaxID)
		case isPrefix:
			p.prefixes = append(p.prefixes, prefix)
		default:
			if p.exact == nil {
				p.exact = make(map[string]struct{})
			}
			p.exact[pattern] = struct{}{}
		}
	}
	slices.Sort(p.prefixes)
	p.prefixes = withoutCovered(p.prefixes)
	return p, nil
}

// withoutCovered returns the sorted prefixes without those that begin with another one. If an ID
// begins with one of the rest, then that is the last one that is not after the ID.
func withoutCovered(prefixes []string) []string {
	kept := prefixes[:0]
	for _, p := range prefixes {
		if n := len(kept); n == 0 || !strings.HasPrefix(p, kept[n-1]) {
			kept = append(kept, p)
		}
	}
	return slices.Clip(kept)
}

// Match reports whether an ID matches one of the patterns. It allocates nothing, and takes time
// that grows with the logarithm of their number.
func (p *Patterns) Match(id string) bool {
	if p == nil {
		return true
	}
	if _, ok := p.exact[id]; ok {
		return true
	}
	i, found := slices.BinarySearch(p.prefixes, id)
	return found || i > 0 && strings.HasPrefix(id, p.prefixes[i-1])
}

// String returns the patterns for people: all of them, or the first and how many more there are.
func (p *Patterns) String() string {
	if p == nil {
		return "*"
	}
	return p.text
}

// textSize bounds the bytes of String, so that it fits into a reason together with other text.
const textSize = 120

func describe(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, pattern := range list {
		if i > 0 && b.Len()+len(pattern) > textSize {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(shorten(pattern))
	}
	return b.String()
}

// shorten cuts a pattern that is long, at the border of a character.
func shorten(pattern string) string {
	if len(pattern) <= textSize {
		return pattern
	}
	n := textSize
	for n > textSize-utf8.UTFMax && !utf8.RuneStart(pattern[n]) {
		n--
	}
	return pattern[:n] + "…"
}
