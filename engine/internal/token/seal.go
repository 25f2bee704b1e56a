package token

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// sealKey is the key of the seals in tokens of messages with ack. Each such message is sealed once
// and checked once, so this costs two or three multiplications and reads whole words.
//
// A seal is 32 of 64 bits that two rounds of a keyed multiplication make (as in wyhash: 128 bits of
// product, whose halves are combined). The key has 256 random bits. The process writes it nowhere.
// A client sees half of the second round's output in each seal. It never sees the output of the
// first round, which depends on another half of the key. That is no proof of the kind that an HMAC
// has. It need not be one: whoever could make up seals would still end no message, because the
// entry of a message names the session that got it. His acks would count as late instead of forged.
// No entry guards the tokens of reports, so they have a longer seal of another kind: see
// reportSeal.
type sealKey [4]uint64

func newSealKey() (k sealKey) {
	randomWords(k[:])
	return k
}

// randomWords fills words with random bits.
func randomWords(words []uint64) {
	b := make([]byte, 8*len(words))
	_, _ = rand.Read(b) // never fails
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
}

func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// seal makes the seal of a token of AckLen bytes, or of one with a link's handle behind them.
func (k *sealKey) seal(token []byte, session uint64) uint32 {
	h := mix(binary.BigEndian.Uint64(token)^k[0], session^k[1])
	if len(token) > AckLen { // handleLen more: two words that overlap
		h = mix(h^binary.BigEndian.Uint64(token[AckLen:]), binary.BigEndian.Uint64(token[AckLen+handleLen-8:])^k[2])
	}
	return uint32(mix(h^k[2], uint64(len(token))^k[3]) >> 32)
}
