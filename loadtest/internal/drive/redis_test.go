package drive

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"distmsg/loadtest/internal/ledger"
)

// redisLeg makes the leg of connection 0 of 2, which has one message to connection 1 in flight.
func redisLeg() *leg {
	w := newTestWire(2, newRedis([][]byte{[]byte("ack-0"), []byte("ack-1")}))
	l := upLeg(&w.conns[0])
	w.t.Sending = true
	w.t.Fill(0)
	w.t.Sending = false
	return l
}

// pushed is a message as Redis pushes it.
func pushed(channel, payload string) string {
	return fmt.Sprintf(">3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(channel), channel, len(payload), payload)
}

// TestRedisParse feeds a stream split at every point.
func TestRedisParse(t *testing.T) {
	l := redisLeg()
	want := "*3\r\n$7\r\nPUBLISH\r\n$13\r\nlt-00000001-1\r\n$140\r\n\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"
	if !bytes.HasPrefix(l.pending, []byte(want)) {
		t.Fatalf("sent %q", l.pending)
	}
	stream := "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.9\r\n$7\r\nmodules\r\n*0\r\n>3\r\n$9\r\nsubscribe\r\n$5\r\nack-0\r\n:1\r\n" +
		pushed("ack-0", "\x01\x00\x00\x00\x00\x00\x00\x00") + ":1\r\n:0\r\n" + pushed("lt-00000001-0", "123456789012ab\r\nc") +
		"-ERR x\r\n+PONG\r\n"
	for at := range len(stream) {
		l := redisLeg()
		tr := l.conn.wire.t
		l.pending, l.awaited, l.conn.wire.awaited, l.conn.wire.settled = nil, true, 1, make(chan struct{})
		l.conn.wire.started = nil // an error is only noted
		carry, err := feed(l, stream[:at], stream[at:])
		if err != nil {
			t.Fatalf("split at %d: %v", at, err)
		}
		if tr.Server != "redis-server 7.0.9" {
			t.Fatalf("split at %d: the server is %q", at, tr.Server)
		}
		if len(carry) > 0 || tr.Ledger.Acked() != 1 || tr.Ledger.Faults() != (ledger.Faults{Corrupted: 1}) || len(l.pending) > 0 ||
			l.awaited || tr.Trouble["-ERR x"] != 1 || tr.Trouble["a message was published to nobody"] != 1 {
			t.Fatalf("split at %d: carry %q, outcomes %v, faults %+v, trouble %v, answers %q, awaited %v",
				at, carry, tr.Ledger.OutcomeWords(), tr.Ledger.Faults(), tr.Trouble, l.pending, l.awaited)
		}
	}
	deep := strings.Repeat("*1\r\n", 10)
	for _, bad := range []string{"HTTP/1.1 400\r\n", "\n", deep, "*x\r\n", "$-1\r\n", "%99999999\r\n", pushed("ack-0", "1"), pushed("lt-00000001-0", "short"),
		">3\r\n$7\r\nmessage\r\n:1\r\n", ">3\r\n$7\r\nmessage\r\n$99999999999\r\n"} {
		if _, err := feed(redisLeg(), bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
