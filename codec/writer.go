package codec

import (
	"encoding/binary"
	"unicode/utf8"
)

func appendUint(b []byte, v uint64) []byte {
	switch {
	case v < 0x80:
		return append(b, byte(v))
	case v <= 0xff:
		return append(b, 0xcc, byte(v))
	case v <= 0xffff:
		return append(b, 0xcd, byte(v>>8), byte(v))
	case v <= 0xffffffff:
		return appendUint32(b, uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xcf), v)
}

// appendUint32 always takes five bytes, so that the value can be patched in place later.
func appendUint32(b []byte, v uint32) []byte {
	return append(b, 0xce, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// patchUint32 overwrites what appendUint32 has appended at the beginning of b.
func patchUint32(b []byte, v uint32) { binary.BigEndian.PutUint32(b[1:], v) }

func appendStr[T []byte | string](b []byte, s T) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n <= 0xff:
		b = append(b, 0xd9, byte(n))
	case n <= 0xffff:
		b = append(b, 0xda, byte(n>>8), byte(n))
	default:
		b = append(b, 0xdb, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, s...)
}

// appendCode and appendEpoch append what decoders accept, whatever they are given: a registry may
// hold what no node has written there.
func appendCode(b []byte, c Code) []byte    { return appendUint(b, min(uint64(c), maxCode)) }
func appendEpoch(b []byte, e uint64) []byte { return appendUint(b, min(e, maxEpoch)) }

// appendReason appends a text for people, cut to MaxReason bytes between two characters.
func appendReason[T []byte | string](b []byte, s T) []byte {
	if len(s) <= MaxReason {
		return appendStr(b, s)
	}
	n := MaxReason
	for n > MaxReason-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return appendStr(b, s[:n])
}

func appendBin(b []byte, p []byte) []byte {
	switch n := len(p); {
	case n <= 0xff:
		b = append(b, 0xc4, byte(n))
	case n <= 0xffff:
		b = append(b, 0xc5, byte(n>>8), byte(n))
	default:
		b = append(b, 0xc6, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, p...)
}

func appendArray(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, 0x90|byte(n))
	case n <= 0xffff:
		return append(b, 0xdc, byte(n>>8), byte(n))
	}
	return append(b, 0xdd, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
