package token

import (
	"hash/maphash"

	"distmsg/codec"
)

// Sum returns the checksum that a pending entry keeps of its message, so that nobody can return
// another message under the same token.
func (k *Keys) Sum(d *codec.Deliver) uint32 { return k.SumWith(k.PayloadSum(d.Payload), d) }

// PayloadSum returns the payload's part of Sum.
func (k *Keys) PayloadSum(payload []byte) uint64 {
	if len(payload) < blockLen {
		return maphash.Bytes(k.seed, payload)
	}
	sum := uint64(len(payload))
	for ; len(payload) >= blockLen; payload = payload[blockLen:] {
		high, low := k.blocks.sum((*[blockLen]byte)(payload))
		sum = mix(sum^low^k.ack[0], high^k.ack[3])
	}
	return sum*31 + maphash.Bytes(k.seed, payload)
}

// SumWith is Sum for messages that share a payload. It takes the PayloadSum of that payload.
func (k *Keys) SumWith(sum uint64, d *codec.Deliver) uint32 {
	sum = sum*31 + maphash.Bytes(k.seed, d.From)
	sum = sum*31 + maphash.Bytes(k.seed, d.To)
	// spread over all bits: the upper half is kept
	sum = sum*31 + (d.Epoch<<8+uint64(d.Flags))*0x9e3779b97f4a7c15
	return uint32(sum >> 32)
}

// SharedSum is the PayloadSum of a payload that several messages share. The first Of makes it. It
// belongs to one goroutine and to one payload. The zero value is ready.
type SharedSum struct {
	sum  uint64
	made bool
}

// Of returns the PayloadSum of payload, which must be the same in each call.
func (s *SharedSum) Of(k *Keys, payload []byte) uint64 {
	if !s.made {
		s.sum, s.made = k.PayloadSum(payload), true
	}
	return s.sum
}
