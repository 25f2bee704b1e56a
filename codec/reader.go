package codec

import (
	"encoding/binary"
	"fmt"
	"math"
)

// reader is a cursor over one frame body. It keeps the first fault. After a fault, reads return
// zero values, and err returns the fault. So a decoder reads field after field and checks once. The
// reader allocates only for a fault.
type reader struct {
	b     []byte
	off   int
	kind  Kind
	fault *Error
}

// open starts a body, which must be an array of at least fields elements with kind as the first
// one. left is the number of elements beyond fields. close skips them.
func open(body []byte, kind Kind, fields int) (r reader, left int) {
	r = reader{b: body, kind: kind}
	n := r.array("")
	if n < 1 {
		r.failAt(0, FaultBadLength, "kind", "the array is empty")
	}
	at := r.off
	if k := r.uint("kind", maxKind); r.fault == nil && Kind(k) != kind {
		r.failAt(at, FaultUnexpectedKind, "kind", "this is a "+Kind(k).String()+" frame")
	}
	if n < fields && r.fault == nil {
		r.failAt(0, FaultBadLength, "", fmt.Sprintf("%d elements, kind included; at least %d are needed", n, fields))
	}
	return r, n - fields
}

// close skips the elements that a newer version has appended. It checks that the array ends where
// the frame ends.
func (r *reader) close(left int) error {
	for ; left > 0 && r.fault == nil; left-- {
		r.skip("extension", 1)
	}
	if r.fault == nil && r.off != len(r.b) {
		r.fail(FaultBadLength, "", fmt.Sprintf("%d bytes follow the array", len(r.b)-r.off))
	}
	return r.err()
}

// err returns the first fault as an error. It returns nil for a nil *Error, which must not become a
// non-nil error.
func (r *reader) err() error {
	if r.fault == nil {
		return nil
	}
	return r.fault
}

// fail reports a fault of the value under the cursor.
func (r *reader) fail(f Fault, field, detail string) { r.failAt(r.off, f, field, detail) }

// failAt reports a fault of the value that begins at byte at. It moves the cursor to the end, so
// that every later read fails, too.
func (r *reader) failAt(at int, f Fault, field, detail string) {
	if r.fault == nil {
		r.fault = &Error{Fault: f, Kind: r.kind, Field: field, Offset: at, Detail: detail}
	}
	r.off = len(r.b)
}

// short reports that the value at byte at would need n bytes.
func (r *reader) short(at int, field string, n uint64) {
	r.failAt(at, FaultBadLength, field, fmt.Sprintf("%d bytes needed, %d remain", n, len(r.b)-at))
}

func (r *reader) wrong(field, want string) {
	r.fail(FaultWrongType, field, fmt.Sprintf("0x%02x is not %s", r.b[r.off], want))
}

// be reads a big-endian integer of n bytes (1, 2, 4 or 8). The integer follows the type byte under
// the cursor.
func (r *reader) be(n int, field string) uint64 {
	if n >= len(r.b)-r.off {
		r.short(r.off, field, uint64(1+n))
		return 0
	}
	p := r.b[r.off:]
	r.off += 1 + n
	switch n {
	case 1:
		return uint64(p[1])
	case 2:
		return uint64(binary.BigEndian.Uint16(p[1:]))
	case 4:
		return uint64(binary.BigEndian.Uint32(p[1:]))
	}
	return binary.BigEndian.Uint64(p[1:])
}

// uint reads a non-negative integer of at most limit. It accepts every width, signed or unsigned.
func (r *reader) uint(field string, limit uint64) uint64 {
	if r.off < len(r.b) && r.b[r.off] < 0x80 && uint64(r.b[r.off]) <= limit {
		v := r.b[r.off]
		r.off++
		return uint64(v)
	}
	return r.wideUint(field, limit)
}

func (r *reader) wideUint(field string, limit uint64) uint64 {
	if r.off >= len(r.b) {
		r.short(r.off, field, 1)
		return 0
	}
	at := r.off
	var v uint64
	switch c := r.b[r.off]; {
	case c < 0x80:
		v = uint64(c)
		r.off++
	case c >= 0xcc && c <= 0xcf: // uint 8, 16, 32, 64
		v = r.be(1<<(c-0xcc), field)
	case c >= 0xd0 && c <= 0xd3: // int 8, 16, 32, 64: fine as long as the sign bit is not set
		n := 1 << (c - 0xd0)
		v = r.be(n, field)
		if v>>(8*n-1) != 0 {
			r.failAt(at, FaultBadValue, field, "a negative integer")
			return 0
		}
	case c >= 0xe0:
		r.fail(FaultBadValue, field, "a negative integer")
		return 0
	default:
		r.wrong(field, "an integer")
		return 0
	}
	if v > limit && r.fault == nil {
		r.failAt(at, FaultBadValue, field, fmt.Sprintf("%d is over the limit of %d", v, limit))
		return 0
	}
	return v
}

// anyLen is the limit for strings that may fill the frame.
const anyLen = math.MaxInt

// str reads a string of at most limit bytes. It returns a view into the body.
func (r *reader) str(field string, limit int) []byte {
	if r.off >= len(r.b) {
		r.short(r.off, field, 1)
		return nil
	}
	at := r.off
	var n uint64
	switch c := r.b[at]; {
	case c&0xe0 == 0xa0:
		n = uint64(c & 0x1f)
		r.off++
	case c >= 0xd9 && c <= 0xdb: // str 8, 16, 32
		n = r.be(1<<(c-0xd9), field)
	default:
		r.wrong(field, "a string")
		return nil
	}
	return r.sized(at, n, field, limit)
}

// bin reads a byte string of at most limit bytes. It returns a view into the body.
func (r *reader) bin(field string, limit int) []byte {
	if r.off >= len(r.b) {
		r.short(r.off, field, 1)
		return nil
	}
	at := r.off
	c := r.b[at]
	if c < 0xc4 || c > 0xc6 { // bin 8, 16, 32
		r.wrong(field, "bin")
		return nil
	}
	return r.sized(at, r.be(1<<(c-0xc4), field), field, limit)
}

// sized reads the n bytes of a value. The caller has just read the head of the value, which is at
// byte at.
func (r *reader) sized(at int, n uint64, field string, limit int) []byte {
	if r.fault != nil {
		return nil
	}
	if n > uint64(limit) {
		r.failAt(at, FaultBadValue, field, fmt.Sprintf("%d bytes, the limit is %d", n, limit))
		return nil
	}
	if n > uint64(len(r.b)-r.off) {
		r.short(at, field, uint64(r.off-at)+n)
		return nil
	}
	end := r.off + int(n)
	v := r.b[r.off:end:end]
	r.off = end
	return v
}

// id reads a client ID: a string of 1 to MaxID bytes.
func (r *reader) id(field string) []byte {
	at := r.off
	v := r.str(field, MaxID)
	if len(v) == 0 && r.fault == nil {
		r.failAt(at, FaultBadValue, field, "the ID is empty")
	}
	return v
}

// fixedBin reads a byte string of exactly n bytes. Where optional is set, it may be empty.
func (r *reader) fixedBin(field string, n int, optional bool) []byte {
	at := r.off
	v := r.bin(field, anyLen)
	if len(v) == n || len(v) == 0 && optional || r.fault != nil {
		return v
	}
	want := ""
	if optional {
		want = "0 or "
	}
	r.failAt(at, FaultBadValue, field, fmt.Sprintf("%d bytes, want %s%d", len(v), want, n))
	return nil
}

// array reads an array header. It refuses a count over the number of bytes that remain, because
// every element takes at least one byte.
func (r *reader) array(field string) int {
	at := r.off
	n := r.count(field)
	if r.fault == nil && n > uint64(len(r.b)-r.off) {
		r.tooMany(at, field, n)
		return 0
	}
	return int(n)
}

// tooMany reports that the array header at byte at declares too many elements, n.
func (r *reader) tooMany(at int, field string, n uint64) {
	r.failAt(at, FaultTooMany, field, fmt.Sprintf("%d elements declared, %d bytes remain", n, len(r.b)-r.off))
}

// count reads an array header of any width. It does not check the count.
func (r *reader) count(field string) uint64 {
	if r.off >= len(r.b) {
		r.short(r.off, field, 1)
		return 0
	}
	switch c := r.b[r.off]; {
	case c&0xf0 == 0x90:
		r.off++
		return uint64(c & 0x0f)
	case c == 0xdc || c == 0xdd: // array 16, 32
		return r.be(2<<(c-0xdc), field)
	}
	r.wrong(field, "an array")
	return 0
}

// list reads the header of an array of at most limit elements.
func (r *reader) list(field string, limit int) int {
	at := r.off
	n := r.array(field)
	if n > limit {
		r.failAt(at, FaultTooMany, field, fmt.Sprintf("%d elements, the limit is %d", n, limit))
		return 0
	}
	return n
}

// pair reads the header of an [x, y, …] element. It returns how many elements follow the first two.
func (r *reader) pair(field string) int { return r.tuple(field, 2) }

// tuple reads the header of an element that is an array. It returns how many elements follow the
// first size elements.
func (r *reader) tuple(field string, size int) int {
	at := r.off
	n := r.array(field)
	if n < size && r.fault == nil {
		r.failAt(at, FaultBadLength, field, fmt.Sprintf("%d elements, at least %d are needed", n, size))
	}
	return n - size
}

// skip skips one value of any type. The value is inside depth arrays.
func (r *reader) skip(field string, depth int) {
	if r.fault != nil {
		return
	}
	w := walk{maxDepth: MaxDepth - depth}
	n, fault, detail := w.value(r.b[r.off:])
	if fault != 0 {
		r.failAt(r.off+n, fault, field, detail)
		return
	}
	r.off += n
}

// skipRest skips the n values that a newer version appended to an array. The array is inside
// depth-1 other arrays.
func (r *reader) skipRest(n int, field string, depth int) {
	for ; n > 0 && r.fault == nil; n-- {
		r.skip(field, depth)
	}
}
