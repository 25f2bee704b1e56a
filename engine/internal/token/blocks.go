package token

import (
	"encoding/binary"
	"math/bits"
)

// blockLen is the length of a block, in bytes. Payloads of at least that length are summed in
// blocks.
const blockLen = 1 << 10

// blockKey is the key for the sums of blocks, as long as a block. The process writes it nowhere.
//
// The sum of a block is that of NH, a part of UMAC, with words of 64 bits: each word is added to
// its word of the key, pairs of them are multiplied, and the products are added up. Whoever does
// not know the key can find another block with the same sum with a chance of 1 in 2^64 at most.
// That suffices, because nobody ever sees a sum. It takes a third of the time of maphash.
type blockKey [blockLen / 8]uint64

func newBlockKey() (k blockKey) {
	randomWords(k[:])
	return k
}

// sum returns the sum of a block, of 128 bits.
func (k *blockKey) sum(b *[blockLen]byte) (high, low uint64) {
	const step = 8 // words
	for i := 0; i < len(k); i += step {
		p, k := (*[8 * step]byte)(b[8*i:]), (*[step]uint64)(k[i:])
		h0, l0 := pair(p, k, 0)
		h1, l1 := pair(p, k, 2)
		h2, l2 := pair(p, k, 4)
		h3, l3 := pair(p, k, 6)
		h0, l0 = add(h0, l0, h1, l1)
		h2, l2 = add(h2, l2, h3, l3)
		h0, l0 = add(h0, l0, h2, l2)
		high, low = add(high, low, h0, l0)
	}
	return high, low
}

// pair multiplies the words i and i+1.
func pair(b *[64]byte, k *[8]uint64, i int) (high, low uint64) {
	return bits.Mul64(binary.LittleEndian.Uint64(b[8*i:])+k[i], binary.LittleEndian.Uint64(b[8*i+8:])+k[i+1])
}

// add adds two numbers of 128 bits.
func add(h0, l0, h1, l1 uint64) (high, low uint64) {
	low, carry := bits.Add64(l0, l1, 0)
	high, _ = bits.Add64(h0, h1, carry)
	return high, low
}
