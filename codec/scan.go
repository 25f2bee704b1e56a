package codec

import (
	"encoding/binary"
	"fmt"
)

// Scan checks that b is exactly one well-formed msgpack value that is safe to hand to a general
// decoder: no deeper than maxDepth, no count larger than the bytes that remain, and only scalar
// map keys. It allocates nothing unless there is a fault, and never recurses. The error is an *Error.
func Scan(b []byte, maxDepth int) error {
	n, fault, detail := scan(b, maxDepth)
	if fault == 0 && n != len(b) {
		fault, detail = FaultBadLength, fmt.Sprintf("%d bytes follow the value", len(b)-n)
	}
	if fault != 0 {
		return &Error{Fault: fault, Field: "payload", Offset: n, Detail: detail}
	}
	return nil
}

// level is an array or map that scan is inside of.
type level struct {
	left  uint64 // values still to come, keys included
	isMap bool
}

// scan walks one value and returns its length, or the place and kind of the fault.
func scan(b []byte, maxDepth int) (off int, fault Fault, detail string) {
	var levels [MaxDepth + 1]level
	maxDepth = min(maxDepth, MaxDepth)
	depth := 0
	for {
		head, body, count, isMap, ok := header(b[off:])
		if !ok {
			return off, FaultBadLength, "the value is cut short, or its type is not a msgpack type"
		}
		if head+body > uint64(len(b)-off) {
			return off, FaultBadLength, fmt.Sprintf("the value needs %d bytes, %d remain", head+body, len(b)-off)
		}
		isContainer := isMap || count != noCount
		if isContainer && depth > 0 && levels[depth].isMap && levels[depth].left%2 == 0 {
			return off, FaultWrongType, "a map key is an array or a map"
		}
		off += int(head + body)
		if isContainer {
			if count > uint64(len(b)-off) {
				return off, FaultTooMany, fmt.Sprintf("%d values declared, %d bytes remain", count, len(b)-off)
			}
			if depth == maxDepth {
				return off, FaultTooDeep, fmt.Sprintf("nested deeper than %d", maxDepth)
			}
			depth++
			levels[depth] = level{left: count, isMap: isMap}
		} else if depth > 0 {
			levels[depth].left--
		}
		for depth > 0 && levels[depth].left == 0 {
			depth--
			if depth > 0 {
				levels[depth].left--
			}
		}
		if depth == 0 {
			return off, 0, ""
		}
	}
}

// noCount marks a value that has no elements to walk.
const noCount = ^uint64(0)

// header reads a value's type: the bytes of its head, the bytes of its body, and for an array or
// map the number of values inside. ok is false when b is too short or the type byte is unused (0xc1).
func header(b []byte) (head, body, count uint64, isMap, ok bool) {
	if len(b) == 0 {
		return 0, 0, noCount, false, false
	}
	c := b[0]
	switch {
	case c < 0x80 || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3: // fixint, nil, bool
		return 1, 0, noCount, false, true
	case c < 0x90: // fixmap
		return 1, 0, 2 * uint64(c&0x0f), true, true
	case c < 0xa0: // fixarray
		return 1, 0, uint64(c & 0x0f), false, true
	case c < 0xc0: // fixstr
		return 1, uint64(c & 0x1f), noCount, false, true
	case c >= 0xc4 && c <= 0xc6: // bin
		return sizedHeader(b, 1<<(c-0xc4), 0)
	case c >= 0xc7 && c <= 0xc9: // ext: one byte of type before the data
		return sizedHeader(b, 1<<(c-0xc7), 1)
	case c == 0xca: // float 32
		return 1, 4, noCount, false, true
	case c == 0xcb: // float 64
		return 1, 8, noCount, false, true
	case c >= 0xcc && c <= 0xcf: // uint
		return 1, 1 << (c - 0xcc), noCount, false, true
	case c >= 0xd0 && c <= 0xd3: // int
		return 1, 1 << (c - 0xd0), noCount, false, true
	case c >= 0xd4 && c <= 0xd8: // fixext
		return 1, 1 + 1<<(c-0xd4), noCount, false, true
	case c >= 0xd9 && c <= 0xdb: // str
		return sizedHeader(b, 1<<(c-0xd9), 0)
	case c == 0xdc || c == 0xdd: // array
		n, k := length(b, 2<<(c-0xdc))
		return k, 0, n, false, k != 0
	case c == 0xde || c == 0xdf: // map
		n, k := length(b, 2<<(c-0xde))
		return k, 0, 2 * n, true, k != 0
	}
	return 0, 0, noCount, false, false // 0xc1
}

// sizedHeader reads the head of a value whose length takes n bytes and whose body has extra bytes beside it.
func sizedHeader(b []byte, n int, extra uint64) (head, body, count uint64, isMap, ok bool) {
	size, k := length(b, n)
	return k, size + extra, noCount, false, k != 0
}

// length reads the n bytes after the type byte; k is the size of the whole head, 0 if b is too short.
func length(b []byte, n int) (size, k uint64) {
	if len(b) < 1+n {
		return 0, 0
	}
	switch n {
	case 1:
		return uint64(b[1]), 2
	case 2:
		return uint64(binary.BigEndian.Uint16(b[1:])), 3
	}
	return uint64(binary.BigEndian.Uint32(b[1:])), 5
}
