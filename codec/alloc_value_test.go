//go:build !race

// Under the race detector sync.Pool drops items at random, so this runs only without it.

package codec

import "testing"

// TestValueAllocations: a value goes into the frame's buffer without a slice in between. What
// remains is the interface value that its caller makes, and nothing per byte.
func TestValueAllocations(t *testing.T) {
	buf := make([]byte, 0, 1<<20)
	send := Send{Seq: 1, To: []byte("bob"), From: []byte("alice")}
	ack := Ack{Token: []byte{1}, Code: CodeAcked}
	small, large := any(&line{1, 2, 3}), any(make([]byte, 1<<19))
	for name, v := range map[string]any{"small": small, "large": large} {
		if n := testing.AllocsPerRun(100, func() {
			b, err := AppendSendValue(buf, &send, v)
			if err != nil || &b[0] != &buf[:1][0] {
				t.Error("not in the buffer:", err)
			}
		}); n != 0 {
			t.Errorf("AppendSendValue, %s: %v allocations", name, n)
		}
		if n := testing.AllocsPerRun(100, func() {
			if _, err := AppendAckValue(buf, &ack, v); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("AppendAckValue, %s: %v allocations", name, n)
		}
	}
	frame, err := AppendSendValue(buf, &send, small)
	if err == nil {
		err = DecodeSend(bodyOf(frame), &send)
	}
	if err != nil {
		t.Fatal(err)
	}
	var got line
	if n := testing.AllocsPerRun(100, func() {
		if err := DecodeValue(send.Payload, &got); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("DecodeValue into a struct of numbers: %v allocations", n)
	}
}
