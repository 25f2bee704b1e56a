package conformance

import (
	"encoding/binary"
	"math"
)

// future rewrites a frame as a node of a later version might write it: every integer, text, byte
// string and array in its widest form, integers also signed, and elements that this version does
// not know at the end of each array that may grow. It means the same.
func future(frame []byte) []byte {
	w := widener{in: frame[4:]}
	w.value(1)
	out := make([]byte, 4, 4+len(w.out))
	binary.BigEndian.PutUint32(out, uint32(len(w.out)))
	return append(out, w.out...)
}

// widener reads the output of the codec's encoder, which uses few forms.
type widener struct {
	in, out []byte
	odd     bool
}

func (w *widener) take(n int) []byte {
	b := w.in[:n]
	w.in = w.in[n:]
	return b
}

// number reads a big-endian integer of n bytes.
func (w *widener) number(n int) (v uint64) {
	for _, b := range w.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

// value rewrites one value at this depth. The frame's own array has depth 1.
func (w *widener) value(depth int) {
	switch b := w.take(1)[0]; {
	case b < 0x80:
		w.uint(uint64(b))
	case b >= 0xcc && b <= 0xcf:
		w.uint(w.number(1 << (b - 0xcc)))
	case b >= 0xa0 && b < 0xc0:
		w.bytes(0xdb, int(b&31))
	case b >= 0xd9 && b <= 0xdb:
		w.bytes(0xdb, int(w.number(1<<(b-0xd9))))
	case b >= 0xc4 && b <= 0xc6:
		w.bytes(0xc6, int(w.number(1<<(b-0xc4))))
	case b >= 0x90 && b < 0xa0:
		w.array(int(b&15), depth)
	case b == 0xdc || b == 0xdd:
		w.array(int(w.number(2<<(b-0xdc))), depth)
	}
}

func (w *widener) uint(v uint64) {
	head := byte(0xcf)
	if w.odd = !w.odd; w.odd && v <= math.MaxInt64 {
		head = 0xd3 // signed
	}
	w.out = binary.BigEndian.AppendUint64(append(w.out, head), v)
}

func (w *widener) bytes(head byte, n int) {
	w.out = binary.BigEndian.AppendUint32(append(w.out, head), uint32(n))
	w.out = append(w.out, w.take(n)...)
}

// array rewrites an array of n elements. The frame's own array and the arrays in a list may grow. A
// list itself may not, except the list of limits, which contains integers.
func (w *widener) array(n, depth int) {
	grows := depth != 2 || n > 0 && (w.in[0] < 0x80 || w.in[0] >= 0xcc && w.in[0] <= 0xcf)
	more := 0
	if grows {
		more = len(extensions)
	}
	w.out = binary.BigEndian.AppendUint32(append(w.out, 0xdd), uint32(n+more))
	for range n {
		w.value(depth + 1)
	}
	if grows {
		for _, e := range extensions {
			w.out = append(w.out, e...)
		}
	}
}

// extensions are elements of a future version, of types that no field has.
var extensions = [][]byte{
	{0xc0}, // nil
	{0xc3}, // true
	// {"a": [1, -1, ""], "b": 1.5}
	{0x82, 0xa1, 'a', 0x93, 0x01, 0xd0, 0xff, 0xa0, 0xa1, 'b', 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0},
	{0xd4, 0x05, 0x07},                         // an extension type
	{0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0xc0}, // nested
}

// raw makes a frame from a body that the codec does not know.
func raw(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}
