package codec

import (
	"encoding/binary"
	"strings"
	"testing"
)

// part is what a head of msgpack is, as far as its width may be chosen.
type part string

const (
	partInt   part = "integers"
	partStr   part = "str"
	partBin   part = "bin"
	partArray part = "arrays"
)

// partOf says what b begins with, the bytes of its head, and the number in it: a value, a length or
// a count. It returns false where there is no choice, or no head.
func partOf(b []byte) (p part, size int, n uint64, ok bool) {
	if b[0] == 0xc1 {
		return "", 0, 0, false
	}
	h, ok := header(b)
	c := b[0]
	switch {
	case !ok || h.size > uint64(len(b)):
	case c < 0x80:
		return partInt, 1, uint64(c), true
	case c >= 0xcc && c <= 0xcf && int(1+h.body) <= len(b):
		var wide [8]byte
		copy(wide[8-h.body:], b[1:1+h.body])
		return partInt, int(1 + h.body), binary.BigEndian.Uint64(wide[:]), true
	case h.class == classArray:
		return partArray, int(h.size), h.count, true
	case h.class == classBin:
		return partBin, int(h.size), h.body, true
	case c >= 0xa0 && c < 0xc0 || c >= 0xd9 && c <= 0xdb:
		return partStr, int(h.size), h.body, true
	}
	return "", 0, 0, false
}

// wideHead encodes a head in at least the width given: 0, 1, 2 and 3 stand for 8, 16, 32 and 64
// bits.
func wideHead(p part, width int, n uint64) []byte {
	first, least, most := map[part]byte{partInt: 0xcc, partStr: 0xd9, partBin: 0xc4, partArray: 0xdc}[p], 0, 2
	switch p {
	case partInt:
		most = 3
	case partArray:
		least = 1
	}
	for width = max(width, least); width < 3 && n>>(8<<width) != 0; width++ {
	}
	width = min(width, most)
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], n)
	return append([]byte{first + byte(width-least)}, wide[8-1<<width:]...)
}

// widened encodes anew the heads that are chosen, up to the first that cannot be read.
func widened(body []byte, width int, choose func(i int, p part) bool) []byte {
	var out []byte
	for i := 0; len(body) > 0; i++ {
		p, size, n, ok := partOf(body)
		switch {
		case !ok:
			h, ok := head{}, false
			if body[0] != 0xc1 {
				h, ok = header(body)
			}
			if size = int(h.size + h.body); !ok || size > len(body) {
				return append(out, body...)
			}
			out = append(out, body[:size]...)
		case choose(i, p):
			out = append(out, wideHead(p, width, n)...)
		default:
			out = append(out, body[:size]...)
		}
		body = body[size:]
		if p == partStr || p == partBin {
			take := min(n, uint64(len(body)))
			out, body = append(out, body[:take]...), body[take:]
		}
	}
	return out
}

// What a node answers does not depend on the widths that an encoder chose: not for what it knows,
// not for what it does not know, and not for what is wrong.
func TestWidthsChangeNothing(t *testing.T) {
	type way func(i int, p part) bool
	ways := map[string]way{
		"the header": func(i int, _ part) bool { return i == 0 },
		"the kind":   func(i int, p part) bool { return i == 1 && p == partInt },
	}
	for _, p := range []part{partInt, partStr, partBin, partArray} {
		ways["all "+string(p)] = func(_ int, other part) bool { return p == other }
	}
	for _, f := range append(badFrames(), moreGood()...) {
		if f.fault == FaultZeroLength || f.fault == FaultFrameTooLarge {
			continue
		}
		body := bodyOf(f.frame)
		want := verdict(t, body)
		for name, way := range ways {
			if want.fault == FaultTooMany && name != "the header" {
				continue // more bytes remain then, so that the count may be honest
			}
			for width := range 4 {
				wide := widened(body, width, way)
				if got := verdict(t, wide); got != want {
					t.Errorf("%s: %+v; with %s in %d bits (%x): %+v", f.name, want, name, 8<<width, wide, got)
				}
			}
		}
	}
}

// answer is what a client hears of a frame.
type answer struct {
	fault Fault
	kind  Kind
	field string
}

// verdict is what a node makes of a body.
func verdict(t *testing.T, body []byte) answer {
	kind, err := PeekKind(body)
	if err == nil {
		if strings.HasPrefix(kind.String(), "kind_") {
			return answer{FaultUnknownKind, kind, "kind"}
		}
		_, err = decodeLimited(kind, body, vectorMaxIDs)
	}
	if err == nil {
		return answer{kind: kind}
	}
	e := asError(t, err, body)
	return answer{e.Fault, kind, e.Field}
}
