package codec

import (
	"encoding/binary"
	"fmt"
)

// Scan checks that b is exactly one well-formed msgpack value that can be decoded within bounds:
//
//   - The value is no deeper than maxDepth, and never deeper than MaxDepth.
//   - No count is larger than the number of bytes that remain.
//   - No map key is an array, a map, a bin or an extension, because general decoders put keys into
//     a hash table.
//
// Scan allocates only for a fault, and never recurses. The error is an *Error.
//
// After Scan, msgpack.Unmarshal may decode b into an empty interface. It must not decode b into a
// map if b has extensions, because it takes the bytes of an extension for the head of the map. Use
// DecodeValue, which handles this.
func Scan(b []byte, maxDepth int) error {
	w := walk{maxDepth: maxDepth, strictKeys: true}
	return w.payload(b)
}

// walk is one pass over a msgpack value.
type walk struct {
	maxDepth   int
	strictKeys bool   // refuse map keys that a decoder might not be able to hash
	exts       *[]int // collects where bodies of extensions begin, or nil: see payloadReader
}

// payload walks b, which must be exactly one value.
func (w *walk) payload(b []byte) error {
	n, fault, detail := w.value(b)
	if fault == 0 && n != len(b) {
		fault, detail = FaultBadLength, fmt.Sprintf("%d bytes follow the value", len(b)-n)
	}
	if fault != 0 {
		return &Error{Fault: fault, Field: "payload", Offset: n, Detail: detail}
	}
	return nil
}

// noteExt remembers an extension whose n bytes begin at at, if a decoder that takes its first byte
// for the head of a map could do harm. With n < 2, the bytes behind that head belong to the next
// value, so the decoder misreads a head only if the head has a length behind it.
func (w *walk) noteExt(b []byte, at int, n uint64) {
	if n > 1 || n == 1 && (b[at] == 0xde || b[at] == 0xdf) {
		*w.exts = append(*w.exts, at)
	}
}

// level is an array or map around the place where the walk is.
type level struct {
	left  uint64 // values still to come, keys included
	isMap bool
}

// value walks the value at the beginning of b and returns its length. On a fault it returns the
// place of the fault and its kind.
func (w *walk) value(b []byte) (off int, fault Fault, detail string) {
	var levels [MaxDepth + 1]level
	maxDepth := max(0, min(w.maxDepth, MaxDepth))
	depth := 0
	for {
		if off == len(b) {
			return off, FaultBadLength, "a value is missing"
		}
		if b[off] == 0xc1 {
			return off, FaultWrongType, "0xc1 is no msgpack type"
		}
		h, ok := header(b[off:])
		if !ok {
			return off, FaultBadLength, "the value's head is cut short"
		}
		if h.size+h.body > uint64(len(b)-off) {
			return off, FaultBadLength, fmt.Sprintf("%d bytes needed, %d remain", h.size+h.body, len(b)-off)
		}
		isKey := levels[depth].isMap && levels[depth].left%2 == 0
		if w.strictKeys && isKey && h.class != classScalar {
			return off, FaultWrongType, "a map key is " + h.class.String()
		}
		if h.class == classExt && w.exts != nil {
			w.noteExt(b, off+int(h.size), h.body)
		}
		if h.class == classArray || h.class == classMap {
			at := off
			off += int(h.size)
			if h.count > uint64(len(b)-off) {
				return at, FaultTooMany, fmt.Sprintf("%d values declared, %d bytes remain", h.count, len(b)-off)
			}
			if depth == maxDepth {
				return at, FaultTooDeep, fmt.Sprintf("more than %d arrays and maps deep", maxDepth)
			}
			depth++
			levels[depth] = level{left: h.count, isMap: h.class == classMap}
		} else {
			off += int(h.size + h.body)
			levels[depth].left--
		}
		for depth > 0 && levels[depth].left == 0 {
			depth--
			levels[depth].left--
		}
		if depth == 0 {
			return off, 0, ""
		}
	}
}

// class is what the walk needs to know about a type.
type class uint8

const (
	classScalar class = iota // nil, bool, number, str
	classBin
	classExt
	classArray
	classMap
)

func (c class) String() string {
	return [...]string{"a scalar", "bin", "an extension", "an array", "a map"}[c]
}

// head is the beginning of a value: the bytes before its body or its elements.
type head struct {
	class class
	size  uint64 // bytes of the head: type, length, extension type
	body  uint64 // bytes that follow it, elements not included
	count uint64 // of an array or map: values inside, keys included
}

// header reads the head of the value at the beginning of b. b must not be empty, and the type byte
// must not be 0xc1. ok is false if b is too short for the head.
func header(b []byte) (h head, ok bool) {
	c := b[0]
	switch {
	case c < 0x80 || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3: // fixint, nil, bool
		return head{size: 1}, true
	case c < 0x90: // fixmap
		return head{class: classMap, size: 1, count: 2 * uint64(c&0x0f)}, true
	case c < 0xa0: // fixarray
		return head{class: classArray, size: 1, count: uint64(c & 0x0f)}, true
	case c < 0xc0: // fixstr
		return head{size: 1, body: uint64(c & 0x1f)}, true
	case c >= 0xc4 && c <= 0xc6: // bin
		n, size := length(b, 1<<(c-0xc4))
		return head{class: classBin, size: size, body: n}, size != 0
	case c >= 0xc7 && c <= 0xc9: // ext
		n, size := length(b, 1<<(c-0xc7))
		return head{class: classExt, size: size + 1, body: n}, size != 0
	case c == 0xca || c == 0xcb: // float 32, 64
		return head{size: 1, body: 4 << (c - 0xca)}, true
	case c >= 0xcc && c <= 0xcf: // uint
		return head{size: 1, body: 1 << (c - 0xcc)}, true
	case c >= 0xd0 && c <= 0xd3: // int
		return head{size: 1, body: 1 << (c - 0xd0)}, true
	case c >= 0xd4 && c <= 0xd8: // fixext
		return head{class: classExt, size: 2, body: 1 << (c - 0xd4)}, true
	case c >= 0xd9 && c <= 0xdb: // str
		n, size := length(b, 1<<(c-0xd9))
		return head{size: size, body: n}, size != 0
	case c == 0xdc || c == 0xdd: // array
		n, size := length(b, 2<<(c-0xdc))
		return head{class: classArray, size: size, count: n}, size != 0
	default: // 0xde, 0xdf: map
		n, size := length(b, 2<<(c-0xde))
		return head{class: classMap, size: size, count: 2 * n}, size != 0
	}
}

// length reads a length of n bytes (1, 2 or 4) behind the type byte. size is the size of the type
// byte and the length together. It is 0 if b is too short.
func length(b []byte, n int) (v, size uint64) {
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
