package codec

import (
	"encoding/binary"
	"math"
)

// Nearly all frames are sends, delivers and acks in the shape that encoders make: no element more
// than the fields. The functions of this file read that shape straight through. They return false
// for everything else, such as a frame with a trace or with a fault. The reader then reads the
// frame from its beginning, and says what is wrong. FuzzDecode holds that both agree.
//
// The helpers take the position of a value and return the one behind it. For what they do not know
// they return the end of the body, where nothing else can be read. So a decoder checks once.

// plainSend reads the body of a send frame into f.
func plainSend(b []byte, f *Send) (ok bool) {
	if len(b) < 2 || b[0] != 0x97 || b[1] != byte(KindSend) {
		return false
	}
	var at int
	var ttl uint64
	f.Seq, at = plainUint(b, 2)
	f.To, at = plainStr(b, at)
	f.From, at = plainStr(b, at)
	ttl, at = plainUint(b, at)
	if at >= len(b) || ttl > maxTTL || len(f.To) == 0 || b[at] >= 0x80 {
		return false
	}
	f.TTL, f.Flags, f.Trace = uint32(ttl), b[at], nil
	f.Payload, ok = plainRest(b, at+1)
	return ok
}

// plainDeliver reads the body of a deliver frame into f.
func plainDeliver(b []byte, f *Deliver) (ok bool) {
	if len(b) < 4 || b[0] != 0x98 || b[1] != byte(KindDeliver) || b[2] != 0xc4 || b[3] > MaxToken {
		return false
	}
	at := 4 + int(b[3])
	if at >= len(b) {
		return false
	}
	var ttl uint64
	f.Token = b[4:at:at]
	f.To, at = plainStr(b, at)
	f.From, at = plainStr(b, at)
	ttl, at = plainUint(b, at)
	if at >= len(b) || ttl > maxTTL || len(f.To) == 0 || b[at] >= 0x80 {
		return false
	}
	f.TTL, f.Flags, f.Trace = uint32(ttl), b[at], nil
	f.Epoch, at = plainUint(b, at+1)
	if f.Epoch > maxEpoch {
		return false
	}
	f.Payload, ok = plainRest(b, at)
	return ok
}

// plainAck reads the body of an ack frame that accepts a message, and gives no reason, into f.
func plainAck(b []byte, f *Ack) (ok bool) {
	if len(b) < 4 || b[0] != 0x95 || b[1] != byte(KindAck) || b[2] != 0xc4 || b[3] > MaxToken {
		return false
	}
	at := 4 + int(b[3])
	if at+2 >= len(b) || b[at] != byte(CodeAcked) || b[at+1] != 0xa0 {
		return false
	}
	end := at + 2
	f.Token, f.Code, f.Reason = b[4:at:at], CodeAcked, b[end:end:end]
	f.Reply, ok = plainRest(b, end)
	return ok
}

// plainUint reads an integer. If it is 128 or more, 8 bytes must stand behind its first, whatever
// they are, as a payload does.
func plainUint(b []byte, at int) (v uint64, next int) {
	if at < len(b) && b[at] < 0x80 {
		return uint64(b[at]), at + 1
	}
	if at+9 > len(b) || b[at] < 0xcc || b[at] > 0xcf { // uint 8, 16, 32, 64
		return 0, len(b)
	}
	c := b[at]
	n := 1 << (c - 0xcc)
	return binary.BigEndian.Uint64(b[at+1:]) >> (64 - 8*n), at + 1 + n
}

// plainStr reads a string of at most 255 bytes, as a view.
func plainStr(b []byte, at int) (s []byte, next int) {
	if at+1 >= len(b) {
		return nil, len(b)
	}
	n := int(b[at]) - 0xa0
	at++
	if n == 0xd9-0xa0 { // str 8
		n = int(b[at])
		at++
	} else if n < 0 || n > 31 {
		return nil, len(b)
	}
	next = at + n
	if next > len(b) {
		return nil, len(b)
	}
	return b[at:next:next], next
}

// plainRest reads a byte string that ends where the body ends, as a view. ok is false for anything
// else.
func plainRest(b []byte, at int) (p []byte, ok bool) {
	if at+2 > len(b) {
		return nil, false
	}
	n := uint64(math.MaxUint64)
	switch c := b[at]; {
	case c == 0xc4: // bin 8
		n = uint64(b[at+1])
		at += 2
	case c == 0xc5 && at+3 <= len(b): // bin 16
		n = uint64(binary.BigEndian.Uint16(b[at+1:]))
		at += 3
	case c == 0xc6 && at+5 <= len(b): // bin 32
		n = uint64(binary.BigEndian.Uint32(b[at+1:]))
		at += 5
	}
	if n != uint64(len(b)-at) {
		return nil, false
	}
	return b[at:len(b):len(b)], true
}
