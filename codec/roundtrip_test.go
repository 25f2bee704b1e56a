package codec

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

func eachKind(t *testing.T, check func(t *testing.T, l layout)) {
	for _, l := range layouts {
		t.Run(l.kind.String(), func(t *testing.T) { check(t, l) })
	}
}

func TestRoundTrip(t *testing.T) {
	eachKind(t, func(t *testing.T, l layout) {
		rapid.Check(t, func(t *rapid.T) {
			v := l.draw(t)
			before := []byte("before")
			frame := appendFields(before, l.kind, v)
			if !bytes.HasPrefix(frame, before) {
				t.Fatal("the buffer's contents changed")
			}
			frame = frame[len(before):]
			body := bodyOf(frame)
			if kind, err := PeekKind(body); kind != l.kind || err != nil {
				t.Fatalf("PeekKind: %v, %v", kind, err)
			}
			got, err := decodeFields(l.kind, body)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, v) {
				t.Fatalf("got  %v\nwant %v", got, v)
			}
		})
	})
}

// TestTheirsReadsOurs decodes our frames with vmihailenco/msgpack, as any array of any values.
func TestTheirsReadsOurs(t *testing.T) {
	eachKind(t, func(t *testing.T, l layout) {
		rapid.Check(t, func(t *rapid.T) {
			v := l.draw(t)
			want := append([]any{uint64(l.kind)}, v...)
			if got := generic(t, bodyOf(appendFields(nil, l.kind, v))); !reflect.DeepEqual(got, want) {
				t.Fatalf("got  %v\nwant %v", got, want)
			}
		})
	})
}

// TestOursReadsTheirs encodes with vmihailenco/msgpack, in every width an encoder may choose.
func TestOursReadsTheirs(t *testing.T) {
	eachKind(t, func(t *testing.T, l layout) {
		rapid.Check(t, func(t *rapid.T) {
			v := l.draw(t)
			whole := append([]any{uint64(l.kind)}, v...)
			var body bytes.Buffer
			appendAnyWidth(t, msgpack.NewEncoder(&body), whole)
			if got := generic(t, body.Bytes()); !reflect.DeepEqual(got, whole) {
				t.Fatalf("the test's own encoding is wrong: %v, want %v", got, whole)
			}
			if kind, err := PeekKind(body.Bytes()); kind != l.kind || err != nil {
				t.Fatalf("PeekKind: %v, %v", kind, err)
			}
			got, err := decodeFields(l.kind, body.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, v) {
				t.Fatalf("got  %v\nwant %v", got, v)
			}
		})
	})
}

// generic decodes one msgpack value with vmihailenco/msgpack and brings it to the tests' types.
func generic(t *rapid.T, b []byte) any {
	r := bytes.NewReader(b)
	v, err := msgpack.NewDecoder(r).DecodeInterface()
	if err != nil || r.Len() != 0 {
		t.Fatalf("%v, %d bytes left of %x", err, r.Len(), b)
	}
	return normal(v)
}

func normal(v any) any {
	switch v := v.(type) {
	case []byte:
		return append([]byte{}, v...)
	case []any:
		elems := []any{}
		for _, e := range v {
			elems = append(elems, normal(e))
		}
		return elems
	}
	switch n := reflect.ValueOf(v); {
	case n.CanUint():
		return n.Uint()
	case n.CanInt():
		return uint64(n.Int())
	}
	return v
}

// appendAnyWidth encodes v, drawing a width for every integer and every length.
func appendAnyWidth(t *rapid.T, enc *msgpack.Encoder, v any) {
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(b []byte) {
		_, err := enc.Writer().Write(b)
		check(err)
	}
	switch v := v.(type) {
	case uint64:
		widths := []struct {
			bits   int
			encode func() error
		}{
			{64, func() error { return enc.EncodeUint(v) }}, // the shortest
			{64, func() error { return enc.EncodeUint64(v) }},
			{63, func() error { return enc.EncodeInt64(int64(v)) }},
			{32, func() error { return enc.EncodeUint32(uint32(v)) }},
			{31, func() error { return enc.EncodeInt32(int32(v)) }},
			{16, func() error { return enc.EncodeUint16(uint16(v)) }},
			{15, func() error { return enc.EncodeInt16(int16(v)) }},
			{8, func() error { return enc.EncodeUint8(uint8(v)) }},
			{7, func() error { return enc.EncodeInt8(int8(v)) }},
		}
		fit := 0
		for fit < len(widths) && v>>(widths[fit].bits-1)>>1 == 0 {
			fit++
		}
		check(widths[rapid.IntRange(0, fit-1).Draw(t, "width")].encode())
	case string:
		write(anyHead(t, len(v), 0xa0, 32, 0xd9, 0xda, 0xdb))
		write([]byte(v))
	case []byte:
		write(anyHead(t, len(v), 0, 0, 0xc4, 0xc5, 0xc6))
		write(v)
	case []any:
		write(anyHead(t, len(v), 0x90, 16, 0, 0xdc, 0xdd))
		for _, e := range v {
			appendAnyWidth(t, enc, e)
		}
	}
}

// anyHead makes a head for n bytes or elements, of a width drawn from those that can hold n: within
// the type byte if n < fixed, or in 1, 2 or 4 bytes behind it (a type byte of 0: not for this
// type). The library has no means to choose.
func anyHead(t *rapid.T, n int, fix byte, fixed int, code8, code16, code32 byte) []byte {
	heads := [][]byte{binary.BigEndian.AppendUint32([]byte{code32}, uint32(n))}
	if n < 1<<16 {
		heads = append(heads, binary.BigEndian.AppendUint16([]byte{code16}, uint16(n)))
	}
	if n < 1<<8 && code8 != 0 {
		heads = append(heads, []byte{code8, byte(n)})
	}
	if n < fixed {
		heads = append(heads, []byte{fix | byte(n)})
	}
	return rapid.SampledFrom(heads).Draw(t, "head")
}
