package codec

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// FuzzDecode: no bytes make a decoder panic or allocate much, and what it accepts is encoded so
// that it decodes to the same. The data is tried as every kind, with the kind's byte set.
func FuzzDecode(f *testing.F) {
	for _, l := range layouts {
		f.Add(bodyOf(example(l.kind)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n := allocated(func() { _, _ = PeekKind(body) })
		for _, l := range layouts {
			if len(body) > 1 && body[1] < 0x80 {
				body[1] = byte(l.kind)
			}
			agrees(t, body)
			var v []any
			var err error
			n += allocated(func() { v, err = decodeFields(l.kind, body) })
			if err != nil {
				asError(t, err, body)
				continue
			}
			if kind, err := PeekKind(body); kind != l.kind || err != nil {
				t.Fatalf("decodes as %v, but PeekKind says %v, %v", l.kind, kind, err)
			}
			again, err := decodeFields(l.kind, bodyOf(appendFields(nil, l.kind, v)))
			if err != nil || !reflect.DeepEqual(again, v) {
				t.Fatalf("%v: %v became %v, %v", l.kind, v, again, err)
			}
		}
		// decodeFields copies everything into interface values; most of the bound is for that.
		if limit := uint64(len(layouts) * (64<<10 + 200*len(body))); n > limit {
			t.Fatalf("%d bytes allocated for %d", n, len(body))
		}
	})
}

// FuzzSplit cuts a stream at every point: the frames that come out are those of the whole.
func FuzzSplit(f *testing.F) {
	var stream []byte
	for _, l := range layouts {
		f.Add(example(l.kind), 1<<20)
		stream = append(stream, example(l.kind)...)
	}
	f.Add(stream, 1<<20)
	f.Add(append(stream, 0, 0, 0, 0), 4096)
	f.Add(stream, 40)
	f.Fuzz(func(t *testing.T, stream []byte, limit int) {
		stream = stream[:min(len(stream), 4096)]
		limit &= 1<<20 - 1
		whole, rest, fault := drain(stream, limit, nil)
		for cut := range len(stream) + 1 {
			frames, carry, err := drain(stream[:cut:cut], limit, nil)
			if err == nil {
				frames, carry, err = drain(slices.Concat(carry, stream[cut:]), limit, frames)
			} else {
				carry = append(carry, stream[cut:]...)
			}
			if !reflect.DeepEqual(frames, whole) || !bytes.Equal(carry, rest) || !reflect.DeepEqual(err, fault) {
				t.Fatalf("cut at %d: %d frames, %d bytes and %v; whole: %d frames, %d bytes and %v",
					cut, len(frames), len(carry), err, len(whole), len(rest), fault)
			}
		}
	})
}

// drain appends the frames of b to frames and returns what is left, with the error that ended it.
func drain(b []byte, limit int, frames [][]byte) ([][]byte, []byte, error) {
	for {
		body, n, err := Split(b, limit)
		if err != nil || n == 0 {
			return frames, b, err
		}
		frames = append(frames, body)
		b = b[n:]
	}
}

// FuzzScan: what Scan accepts decodes into anything without a panic and in bounded memory.
func FuzzScan(f *testing.F) {
	for _, v := range []any{
		someOrder(), []any{1, "a", nil, []byte("b"), 2.5}, map[string]any{"a": []int{1}, "b": map[string]any{}},
		map[int]string{1: "a"}, []string{"x"}, someOrder().At,
	} {
		b, err := msgpack.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{"\xd7\xff\xdf\xff\xff\xff\xff\x00\x00\x00", "\x81\xa1a\xd6\x07\xde\xff\xff\x00", "\x92\xd4\x07\xdf\xce\x00\xff\xff\xff", "\x81\x91\x01\x02", "\xdd\x00\x98\x96\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		err := Scan(payload, MaxDepth)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%v is not an *Error", err)
		}
		decoders := []func(){}
		if err == nil {
			decoders = append(decoders, func() { var v any; _ = msgpack.Unmarshal(payload, &v) })
		}
		for _, v := range targets() {
			decoders = append(decoders, func() {
				if got := DecodeValue(payload, v); err != nil && !errors.As(got, &e) {
					t.Fatalf("Scan says %v, DecodeValue %v", err, got)
				}
			})
		}
		for i, decode := range decoders {
			if n := allocated(decode); n > allocBound(len(payload)) {
				t.Fatalf("decoder %d: %d bytes allocated for %x", i, n, payload)
			}
		}
	})
}
