package redis

import (
	"context"
	"crypto/rand"
	"math/bits"
)

// hashKey is the secret of a registry's hash: 128 random bits. Without it, nobody can find IDs that
// fall into the same bucket, and fill that bucket until Redis gets slow.
type hashKey struct {
	text string // as stored in Redis; empty: the data are older than such keys, see bucketOf
	a, b uint64
}

// newHashKey derives the key from a text: the first and the second half of its bytes, mixed.
func newHashKey(text string) hashKey {
	return hashKey{text: text, a: siphash(0, 0, text), b: siphash(1, 0, text)}
}

// siphash is SipHash-2-4 with a 64-bit result, by Aumasson and Bernstein: short, fast, and made for
// hash tables with keys from strangers.
func siphash(k0, k1 uint64, s string) uint64 {
	h := sip{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	last := uint64(len(s)) << 56
	for ; len(s) >= 8; s = s[8:] {
		h.add(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56)
	}
	for i := range len(s) {
		last |= uint64(s[i]) << (8 * i)
	}
	h.add(last)
	h.v2 ^= 0xff
	for range 4 {
		h.round()
	}
	return h.v0 ^ h.v1 ^ h.v2 ^ h.v3
}

// sip is the state of a hash.
type sip struct{ v0, v1, v2, v3 uint64 }

func (h *sip) add(word uint64) {
	h.v3 ^= word
	h.round()
	h.round()
	h.v0 ^= word
}

func (h *sip) round() {
	h.v0 += h.v1
	h.v1 = bits.RotateLeft64(h.v1, 13) ^ h.v0
	h.v0 = bits.RotateLeft64(h.v0, 32)
	h.v2 += h.v3
	h.v3 = bits.RotateLeft64(h.v3, 16) ^ h.v2
	h.v0 += h.v3
	h.v3 = bits.RotateLeft64(h.v3, 21) ^ h.v0
	h.v2 += h.v1
	h.v1 = bits.RotateLeft64(h.v1, 17) ^ h.v2
	h.v2 = bits.RotateLeft64(h.v2, 32)
}

// checkHash returns the key of the hash. If the key is missing in Redis, this node writes the one
// that it knows, or that the markers name. The first node that finds no data at all creates a key.
// Data without a key stay without one.
func (r *Registry) checkHash(ctx context.Context, known hashKey, has names, first bool) (hashKey, error) {
	found := has.hash
	if found == "" {
		text := known.text
		if first {
			text = keyOf(has.markers)
		}
		if text == "" {
			return hashKey{}, nil
		}
		var err error
		if found, err = r.setIfMissing(ctx, r.keys.hash(), text); err != nil {
			return known, err
		}
	}
	if found == known.text {
		return known, nil
	}
	return newHashKey(found), nil
}

// keyOf returns the key that markers name: a new one if there are no markers, and none if they name
// none.
func keyOf(markers [groups]string) string {
	old := false
	for _, text := range markers {
		m := parseMarker(text)
		if m.key != "" {
			return m.key
		}
		old = old || m != marker{}
	}
	if old {
		return ""
	}
	return rand.Text()
}
