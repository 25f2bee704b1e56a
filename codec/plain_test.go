package codec

import (
	"bytes"
	"math"
	"reflect"
	"testing"
)

// agrees fails if a frame that is read straight through says something else than the reader says.
func agrees(t *testing.T, body []byte) {
	var send [2]Send
	if plainSend(body, &send[0]) {
		same(t, body, send, decodeSend(body, &send[1]))
	}
	var deliver [2]Deliver
	if plainDeliver(body, &deliver[0]) {
		same(t, body, deliver, decodeDeliver(body, KindDeliver, &deliver[1]))
	}
	var ack [2]Ack
	if plainAck(body, &ack[0]) {
		same(t, body, ack, decodeAck(body, &ack[1]))
	}
}

// same compares what the two decoders made of body. Nobody must be able to append to a view.
func same[F any](t *testing.T, body []byte, got [2]F, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%x is read straight through; the reader says %v", body, err)
	}
	plain, careful := reflect.ValueOf(&got[0]).Elem(), reflect.ValueOf(&got[1]).Elem()
	for i := range plain.NumField() {
		a, b := plain.Field(i), careful.Field(i)
		if !reflect.DeepEqual(a.Interface(), b.Interface()) || a.Kind() == reflect.Slice && a.Cap() != b.Cap() {
			t.Fatalf("%x: %s is %v; the reader says %v", body, plain.Type().Field(i).Name, a, b)
		}
	}
}

// What encoders make of messages without trace is read straight through, unless it is nearly empty.
// Both decoders say the same about frames that differ from that in one byte or lack their end.
func TestPlain(t *testing.T) {
	long := bytes.Repeat([]byte{'i'}, MaxID)
	for _, size := range []int{8, 255, 256, 65_535, 65_536} {
		for _, n := range []uint64{0, 0x7f, 0x80, 0xff, 0x100, math.MaxUint16, math.MaxUint32, 1 << 32, maxEpoch} {
			for _, id := range [][]byte{[]byte("i"), long[:31], long[:32], long} {
				content := make([]byte, size)
				token := make([]byte, n%(MaxToken+1))
				ttl := uint32(min(n, maxTTL))
				frames := [][]byte{
					AppendSend(nil, &Send{Seq: n, To: id, From: id[1:], TTL: ttl, Flags: 3, Payload: content}),
					AppendDeliver(nil, &Deliver{Token: token, To: id, From: id[1:], TTL: ttl, Flags: 3, Epoch: n, Payload: content}),
					AppendAck(nil, &Ack{Token: token, Code: CodeAcked, Reply: content[8:]}),
				}
				for i, frame := range frames {
					body := bodyOf(frame)
					if !(plainSend(body, new(Send)) || plainDeliver(body, new(Deliver)) || plainAck(body, new(Ack))) {
						t.Errorf("frame %d with %d bytes, number %d and an ID of %d bytes is not read straight through", i, size, n, len(id))
					}
					agrees(t, body)
				}
			}
		}
	}
	for _, frame := range [][]byte{
		AppendSend(nil, &Send{Seq: 1 << 40, To: []byte("to"), From: []byte("from"), TTL: 1 << 20, Flags: 1, Payload: make([]byte, 10)}),
		AppendDeliver(nil, &Deliver{Token: make([]byte, 12), To: []byte("to"), From: []byte("from"), TTL: 1 << 20, Flags: 1, Epoch: 1 << 50, Payload: make([]byte, 10)}),
		AppendAck(nil, &Ack{Token: make([]byte, 12), Code: CodeAcked, Reply: make([]byte, 10)}),
	} {
		body := bodyOf(frame)
		for at := range body {
			agrees(t, body[:at])
			changed := bytes.Clone(body)
			for value := range 256 {
				changed[at] = byte(value)
				agrees(t, changed)
			}
		}
	}
}
