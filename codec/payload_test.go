package codec

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

type order struct {
	ID    string
	Lines []line
	Tags  map[string]string
	At    time.Time
	Note  *string
}

type line struct {
	Article uint64
	Count   int
	Price   float64
}

func someOrder() order {
	return order{
		ID:    "o-1",
		Lines: []line{{7, -2, 9.5}, {1 << 60, 1, 0}},
		Tags:  map[string]string{"a": "b"},
		// its extension's body begins with 0xdf, see payloadReader
		At: time.Unix(1_700_000_000, 935_400_000).UTC(),
	}
}

// equal compares, but not the location of the time, which msgpack does not carry.
func (o order) equal(p order) bool {
	if !o.At.Equal(p.At) {
		return false
	}
	o.At = p.At
	return reflect.DeepEqual(o, p)
}

func TestValueRoundTrip(t *testing.T) {
	want := someOrder()
	before := []byte("before")
	frame, err := AppendSendValue(before, &Send{Seq: 1, To: []byte("bob"), From: []byte("alice"), Flags: FlagAck, Payload: []byte("ignored")}, want)
	if err != nil || !bytes.HasPrefix(frame, before) {
		t.Fatalf("%x, %v", frame, err)
	}
	var send Send
	if err := DecodeSend(bodyOf(frame[len(before):]), &send); err != nil {
		t.Fatal(err)
	}
	theirs, err := msgpack.Marshal(want)
	if err != nil || !bytes.Equal(send.Payload, theirs) {
		t.Errorf("payload %x, msgpack.Marshal says %x (%v)", send.Payload, theirs, err)
	}
	var got order
	if err := DecodeValue(send.Payload, &got); err != nil || !got.equal(want) {
		t.Errorf("%+v, %v", got, err)
	}
	clear(frame) // got must not be a view
	if !got.equal(want) {
		t.Error("the decoded value is a view into the frame")
	}

	frame, err = AppendAckValue(nil, &Ack{Token: []byte{1}, Code: CodeRejected, Reason: []byte("why"), Reply: []byte("ignored")}, want)
	if err != nil {
		t.Fatal(err)
	}
	var ack Ack
	if err := DecodeAck(bodyOf(frame), &ack); err != nil {
		t.Fatal(err)
	}
	got = order{}
	if err := DecodeValue(ack.Reply, &got); err != nil || !got.equal(want) || string(ack.Reason) != "why" || ack.Code != CodeRejected {
		t.Errorf("%+v, %+v, %v", ack, got, err)
	}

	frame, err = AppendMulticastValue(nil, &Multicast{Seq: 1, From: []byte("alice"), Payload: []byte("ignored")}, []string{"bob", "carol"}, want)
	if err != nil {
		t.Fatal(err)
	}
	var many Multicast
	if err := DecodeMulticast(bodyOf(frame), 2, &many); err != nil {
		t.Fatal(err)
	}
	got = order{}
	if err := DecodeValue(many.Payload, &got); err != nil || !got.equal(want) || string(many.From) != "alice" || many.To.Len() != 2 {
		t.Errorf("%+v, %+v, %v", many, got, err)
	}
}

func TestValueThatCannotBeEncoded(t *testing.T) {
	before := []byte("before")
	if b, err := AppendSendValue(before, &Send{To: []byte("b")}, make(chan int)); err == nil || !strings.HasPrefix(err.Error(), "send.payload: ") || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := AppendMulticastValue(before, new(Multicast), []string{"b"}, make(chan int)); err == nil || !strings.HasPrefix(err.Error(), "multicast.payload: ") || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := AppendAckValue(before, &Ack{Token: []byte{1}}, func() {}); err == nil || !strings.HasPrefix(err.Error(), "ack.reply: ") || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
}

// The types that payloads are decoded into here: the ones for which msgpack has paths of its own.
func targets() []any {
	return []any{
		new(any), new([]any), new(map[string]any), new(map[string]string), new(map[any]any), new(map[int]int),
		new([]string), new([][]int), new([]map[string]any), new(map[string]map[string]any), new(map[time.Time]any),
		new(string), new([]byte), new(uint64), new(time.Time), new([4]byte), new(order), new([]order), new(*order),
		new(struct {
			A map[string]any `msgpack:"a"`
			B string         `msgpack:"b,intern"`
			C any            `msgpack:"c,intern"`
		}),
		new(msgpack.RawMessage),
	}
}

// allocated is what f takes from the heap, freed or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// allocBound is what the decoding of n bytes may take. The largest element of targets has about 100
// bytes, maps have spare room, and type information is cached on first use.
func allocBound(n int) uint64 { return 256<<10 + 1024*uint64(n) }

// TestHostilePayloads has what msgpack v5.4.1 itself would die of, or spend hundreds of MiB on.
func TestHostilePayloads(t *testing.T) {
	deep := func(n int, open, end string) string { return strings.Repeat(open, n) + end }
	for _, c := range []struct {
		name    string
		payload string
		fault   Fault // 0: the scan lets it pass, and decoding is harmless
		at      int
	}{
		{"empty", "", FaultBadLength, 0},
		{"array of 10 M", "\xdd\x00\x98\x96\x80", FaultTooMany, 0},
		{"array of 10 M, some of them", "\xdd\x00\x98\x96\x80" + strings.Repeat("\xc0", 1000), FaultTooMany, 0},
		{"array of 4 G in an array", "\x92\x01\xdd\xff\xff\xff\xff\x01", FaultTooMany, 2},
		{"map of 10 M", "\xdf\x00\x98\x96\x80", FaultTooMany, 0},
		{"map of 4 G", "\xdf\xff\xff\xff\xff\xa1a\xa1b", FaultTooMany, 0},
		{"map of 2^31: twice that overflows 32 bits", "\xdf\x80\x00\x00\x00\xa1a\xa1b", FaultTooMany, 0},
		{"map with a key only", "\x81\xa1a", FaultBadLength, 3},
		{"map whose last value is missing", "\x82\x01\x02\xa1a", FaultBadLength, 5},
		{"array whose last value is missing", "\x92\xa1a", FaultBadLength, 3},
		{"bin of 2 GiB", "\xc6\x80\x00\x00\x00", FaultBadLength, 0},
		{"bin of 4 GiB in a map", "\x81\xa1a\xc6\xff\xff\xff\xffabc", FaultBadLength, 3},
		{"str of 4 GiB", "\xdb\xff\xff\xff\xffabc", FaultBadLength, 0},
		{"ext of 4 GiB", "\xc9\xff\xff\xff\xff\x01abc", FaultBadLength, 0},
		{"head cut short", "\xdb\x00\x00", FaultBadLength, 0},
		{"int cut short", "\xcf\x00", FaultBadLength, 0},
		{"16 deep", deep(15, "\x91", "\x90"), 0, 0},
		{"17 deep", deep(16, "\x91", "\x90"), FaultTooDeep, 16},
		{"17 deep, maps", deep(16, "\x81\xa1k", "\x80"), FaultTooDeep, 48},
		{"a million deep", deep(1<<20, "\x91", "\xc0"), FaultTooDeep, 16},
		{"array as map key", "\x81\x91\x01\x02", FaultWrongType, 1},
		{"array as the second map key", "\x82\x01\x02\x90\x03", FaultWrongType, 3},
		{"map as map key", "\x81\x80\x02", FaultWrongType, 1},
		{"array as a key in a value", "\x81\xa1a\x81\x91\x01\x02", FaultWrongType, 4},
		{"bin as map key: Go cannot hash it", "\x81\xc4\x01a\x02", FaultWrongType, 1},
		{"extension as map key", "\x81\xd6\xff\x00\x00\x00\x00\x02", FaultWrongType, 1},
		{"0xc1", "\xc1", FaultWrongType, 0},
		{"0xc1 in an array", "\x92\x01\xc1", FaultWrongType, 2},
		{"two values", "\x01\x02", FaultBadLength, 1},
		{"a map of 4 G in a timestamp", "\xd7\xff\xdf\xff\xff\xff\xff\x00\x00\x00", 0, 0},
		{"a map of 65535 in an extension", "\xd6\x07\xde\xff\xff\x00", 0, 0},
		{"a map of 4 G behind an extension of one byte", "\x92\xd4\x07\xdf\xce\xff\xff\xff\xff", 0, 0},
		{"an array of 4 G in a map in an extension", "\x81\xa1a\xc7\x08\x07\x81\xa1k\xdd\xff\xff\xff\xff", 0, 0},
		{"an extension of no bytes before a map", "\x92\xc7\x00\x07\x81\xa1a\x01", 0, 0},
		{"many empty maps", "\xdc\x10\x00" + strings.Repeat("\x80", 4096), 0, 0},
		{"a field of interface type, twice: a panic in msgpack", "\x82\xa1c\x91\x01\xa1c\x91\x02", 0, 0},
		{"an interned string that was never seen", "\x81\xa1b\xd4\x80\x05", 0, 0},
	} {
		payload := []byte(c.payload)
		err := Scan(payload, MaxDepth)
		var e *Error
		if c.fault == 0 && err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if c.fault != 0 && (!errors.As(err, &e) || e.Fault != c.fault || e.Offset != c.at || e.Field != "payload") {
			t.Errorf("%s: %v, want %v at %d", c.name, err, c.fault, c.at)
		}
		for _, v := range targets() {
			_ = DecodeValue(payload, v) // warm: pools, type information
			v = reflect.New(reflect.TypeOf(v).Elem()).Interface()
			var got error
			n := allocated(func() { got = DecodeValue(payload, v) })
			if n > allocBound(len(payload)) {
				t.Errorf("%s: %d bytes allocated for a %T", c.name, n, v)
			}
			if c.fault != 0 && !errors.As(got, &e) {
				t.Errorf("%s: a %T: %v, want an *Error", c.name, v, got)
			}
		}
	}
}

func TestScanDepth(t *testing.T) {
	for depth := -1; depth <= MaxDepth+2; depth++ {
		allowed := max(0, min(depth, MaxDepth))
		nested := func(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n), 0xc0) }
		if err := Scan(nested(allowed), depth); err != nil {
			t.Errorf("limit %d: %v", depth, err)
		}
		err := Scan(nested(allowed+1), depth)
		var e *Error
		if !errors.As(err, &e) || e.Fault != FaultTooDeep || e.Offset != allowed {
			t.Errorf("limit %d: %v", depth, err)
		}
	}
}

// TestExtensionsInPayloads: the guard against misread extensions lets honest ones pass.
func TestExtensionsInPayloads(t *testing.T) {
	for ns := range 1000 { // among them some whose first byte is 0xdf
		want := time.Unix(1_700_000_000, int64(ns)*1_000_000).UTC()
		b, err := msgpack.Marshal([]any{want, map[string]any{"a": want}, want})
		if err != nil {
			t.Fatal(err)
		}
		var got []any
		if err := DecodeValue(b, &got); err != nil {
			t.Fatal(want, err)
		}
		if !got[0].(time.Time).Equal(want) || !got[1].(map[string]any)["a"].(time.Time).Equal(want) || !got[2].(time.Time).Equal(want) {
			t.Fatal(got, want)
		}
	}
	type interned struct {
		A string `msgpack:"a,intern"`
	}
	var want, got []interned
	for i := range 300 {
		want = append(want, interned{fmt.Sprint("text", i%200)})
	}
	b, err := msgpack.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := DecodeValue(b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Error(err)
	}
}

// panicky has a codec of its own that fails hard.
type panicky struct{}

func (panicky) DecodeMsgpack(*msgpack.Decoder) error { panic("mine") }
func (panicky) EncodeMsgpack(*msgpack.Encoder) error { panic("mine") }

func TestPanics(t *testing.T) {
	used := []any{[]any{1}, 2} // decoding into the slice inside panics in msgpack
	for name, decode := range map[string]func() error{
		"a decoder of the user's": func() error { return DecodeValue([]byte{0xc3}, &panicky{}) },
		"a used value":            func() error { return DecodeValue([]byte{0x92, 0x91, 1, 2}, &used) },
		"nil":                     func() error { return DecodeValue([]byte{0xc3}, nil) },
		"no pointer":              func() error { return DecodeValue([]byte{0xc3}, true) },
	} {
		for range 10 {
			if decode() == nil {
				t.Errorf("%s: no error", name)
			}
			var s string
			if err := DecodeValue([]byte{0xa1, 'x'}, &s); err != nil || s != "x" {
				t.Fatalf("after %s: %q, %v", name, s, err)
			}
		}
	}
	for range 10 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic of a user's encoder was swallowed")
				}
			}()
			_, _ = AppendSendValue(nil, &Send{}, &panicky{})
		}()
		if b, err := AppendSendValue(nil, &Send{To: []byte("b")}, "x"); err != nil || len(bodyOf(b)) == 0 {
			t.Fatalf("after a panic: %x, %v", b, err)
		}
	}
}
