package token

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// The sum of a block is that of NH, in the arithmetic of large numbers.
func TestBlockSum(t *testing.T) {
	k := newBlockKey()
	var b [blockLen]byte
	random := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	word := func(i int) *big.Int {
		return new(big.Int).SetUint64(binary.LittleEndian.Uint64(b[8*i:]) + k[i])
	}
	want := new(big.Int)
	for i := 0; i < len(k); i += 2 {
		want.Add(want, new(big.Int).Mul(word(i), word(i+1)))
	}
	want.Mod(want, new(big.Int).Lsh(big.NewInt(1), 128))
	high, low := k.sum(&b)
	got := new(big.Int).SetUint64(high)
	got.Add(got.Lsh(got, 64), new(big.Int).SetUint64(low))
	if got.Cmp(want) != 0 {
		t.Errorf("%x, want %x", got, want)
	}
}

// Payloads that differ in one bit, in their length or in the order of their blocks have different
// sums, whether or not they have blocks.
func TestPayloadSum(t *testing.T) {
	k, other := NewKeys(loops, true), NewKeys(loops, true)
	random := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, blockLen - 1, blockLen, blockLen + 1, 3*blockLen + 100, 16 * blockLen} {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		want := k.PayloadSum(p)
		if got := k.PayloadSum(bytes.Clone(p)); got != want {
			t.Errorf("%d bytes: %x, and then %x", n, want, got)
		}
		if other.PayloadSum(p) == want {
			t.Errorf("%d bytes: two nodes have the same sum", n)
		}
		if k.PayloadSum(append(bytes.Clone(p), 0)) == want {
			t.Errorf("%d bytes: a byte more has the same sum", n)
		}
		for range min(n, 500) {
			at, bit := random.IntN(n), byte(1)<<random.IntN(8)
			p[at] ^= bit
			if k.PayloadSum(p) == want {
				t.Errorf("%d bytes: byte %d with mask %x changed has the same sum", n, at, bit)
			}
			p[at] ^= bit
		}
		if n >= 2*blockLen {
			if k.PayloadSum(slices.Concat(p[blockLen:2*blockLen], p[:blockLen], p[2*blockLen:])) == want {
				t.Errorf("%d bytes: two blocks exchanged have the same sum", n)
			}
			if k.PayloadSum(p[blockLen:]) == want {
				t.Errorf("%d bytes: a block less has the same sum", n)
			}
		}
	}
}

func BenchmarkPayloadSum(b *testing.B) {
	k := NewKeys(loops, true)
	p := make([]byte, 16<<10)
	b.SetBytes(int64(len(p)))
	var sum uint64
	for b.Loop() {
		sum += k.PayloadSum(p)
	}
	_ = sum
}
