package engine

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// sealKey is the key of the seals in tokens of messages with ack. Each such message is sealed once
// and checked once, so this costs two or three multiplications and reads whole words.
//
// A seal is 32 of 64 bits that two rounds of a keyed multiplication make (as in wyhash: 128 bits of
// product, whose halves are combined). The key has 256 random bits, is never written anywhere, and
// ends with the process. What a client sees of one seal is half of the second round's output, and
// the first round's output, which depends on another half of the key, it never sees. That is no
// proof, as there is for an HMAC. It need not be one: whoever could make seals up would still end no
// message, because the entry of a message names the session that it was delivered to. He would be
// counted as late instead of forged. Tokens of reports, which no entry guards, have a longer seal of
// another kind: see sealOf.
type sealKey [4]uint64

func newSealKey() (k sealKey) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range k {
		k[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return k
}

func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// ofAck is the seal of a token of ackTokenLen bytes, or of one with a link's handle behind them.
func (k *sealKey) ofAck(token []byte, session uint64) uint32 {
	h := mix(binary.BigEndian.Uint64(token)^k[0], session^k[1])
	if len(token) > ackTokenLen { // linkHandleLen more: two words that overlap
		h = mix(h^binary.BigEndian.Uint64(token[ackTokenLen:]), binary.BigEndian.Uint64(token[ackTokenLen+linkHandleLen-8:])^k[2])
	}
	return uint32(mix(h^k[2], uint64(len(token))^k[3]) >> 32)
}
