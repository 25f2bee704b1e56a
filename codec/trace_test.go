package codec

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

const traceOfTests = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestParseTrace(t *testing.T) {
	for text, want := range map[string]string{
		traceOfTests: traceOfTests,
		"cc" + traceOfTests[2:] + "-what the future brings": "cc" + traceOfTests[2:],
		"":                            "",
		traceOfTests[:54]:             "",
		traceOfTests + "-":            "",
		"cc" + traceOfTests[2:] + ".": "",
		"ff" + traceOfTests[2:]:       "",
		"0x" + traceOfTests[2:]:       "",
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01": "",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": "",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": "",
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "",
	} {
		var trace [TraceLen]byte
		ok := ParseTrace(&trace, text)
		if ok != (want != "") || ok && FormatTrace(trace[:]) != want {
			t.Errorf("%q: %v, %s", text, ok, FormatTrace(trace[:]))
		}
	}
	if got := FormatTrace([]byte("short")); got != "" {
		t.Errorf("a trace of 5 bytes is %q", got)
	}
}

// traced returns a frame of each kind that may have a trace.
func traced(trace []byte) map[Kind][]byte {
	to := [][]byte{[]byte("to")}
	all := []Recipient{{To: to[0], Session: make([]byte, SessionIDLen), Why: KindNotMine}}
	deliver := Deliver{To: to[0], TTL: 5, Payload: []byte("payload"), Trace: trace}
	many := DeliverMany{TTL: 5, Payload: []byte("payload"), Trace: trace}
	forward := Forward{Deliver: deliver, Session: make([]byte, SessionIDLen)}
	frames := map[Kind][]byte{
		KindSend:      AppendSend(nil, &Send{To: to[0], Payload: []byte("payload"), Trace: trace}),
		KindMulticast: AppendMulticast(nil, &Multicast{Payload: []byte("payload"), Trace: trace}, to),
		KindDeliver:   AppendDeliver(nil, &deliver),
		KindNotHere:   AppendNotHere(nil, &deliver),
	}
	for _, kind := range []Kind{KindForward, KindNotMine, KindNotAttached} {
		frames[kind] = AppendForward(nil, kind, &forward)
	}
	for _, kind := range []Kind{KindDeliverMany, KindNotHereMany, KindForwardMany, KindReturnMany} {
		frames[kind] = AppendDeliverMany(nil, kind, &many, all)
	}
	return frames
}

// traceIn returns the trace of a frame.
func traceIn(kind Kind, body []byte) (trace []byte, err error) {
	switch kind {
	case KindSend:
		var f Send
		err = DecodeSend(body, &f)
		trace = f.Trace
	case KindMulticast:
		var f Multicast
		err = DecodeMulticast(body, 1, &f)
		trace = f.Trace
	case KindDeliver, KindNotHere:
		var f Deliver
		err = decodeDeliver(body, kind, &f)
		trace = f.Trace
	case KindForward, KindNotMine, KindNotAttached:
		var f Forward
		err = DecodeForward(body, kind, &f)
		trace = f.Trace
	default:
		var f DeliverMany
		err = DecodeDeliverMany(body, kind, 1, &f)
		trace = f.Trace
		if r, ok := f.To.Next(); ok && !bytes.Equal(f.Deliver(&r).Trace, trace) {
			return nil, err
		}
	}
	return trace, err
}

// A trace comes out as it went in, with whatever follows. What is no trace is none, and no fault.
func TestTraces(t *testing.T) {
	var trace [TraceLen]byte
	ParseTrace(&trace, traceOfTests)
	without := traced(nil)
	for kind, frame := range traced(trace[:]) {
		body, plain := bodyOf(frame), bodyOf(without[kind])
		if got, err := traceIn(kind, plain); got != nil || err != nil {
			t.Errorf("%v without a trace: %x, %v", kind, got, err)
		}
		if len(body) != len(plain)+traceSize(trace[:]) || body[0] != plain[0]+1 {
			t.Errorf("%v: %d bytes with a trace, %d without", kind, len(body), len(plain))
		}
		n := int(body[0] & 0x0f)
		for name, b := range map[string][]byte{
			"alone": body, "before another extension": extended(body, n, 0xc0),
			"bin 16": slices.Concat(body[:1], plain[1:], []byte{0xc5, 0, TraceLen}, trace[:]),
		} {
			if got, err := traceIn(kind, b); !bytes.Equal(got, trace[:]) || err != nil {
				t.Errorf("%v, %s: %x, %v", kind, name, got, err)
			}
		}
		for name, b := range map[string][]byte{
			"a byte less": extended(plain, n-1, append([]byte{0xc4, TraceLen - 1}, trace[1:]...)...),
			"text":        extended(plain, n-1, append([]byte{0xd9, TraceLen}, trace[:]...)...),
		} {
			if got, err := traceIn(kind, b); got != nil || err != nil {
				t.Errorf("%v, %s: %x, %v", kind, name, got, err)
			}
		}
		if got, err := decodeFields(kind, body); err != nil || !reflect.DeepEqual(got, mustFields(t, kind, plain)) {
			t.Errorf("%v: the other fields are %v, %v", kind, got, err)
		}
	}
}

func mustFields(t *testing.T, kind Kind, body []byte) []any {
	v, err := decodeFields(kind, body)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
