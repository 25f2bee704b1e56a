package drive

import (
	"bytes"
	"testing"

	"distmsg/loadtest/floor"
	"distmsg/loadtest/internal/ledger"
)

func bareFrame(to uint32, kind floor.Kind, body string) string {
	return string(append(floor.Begin(nil, to, kind, len(body)), body...))
}

// bareLeg makes the leg of connection 0 of 2, which has one message to connection 1 in flight.
func bareLeg() *leg {
	w := newTestWire(2, newBare)
	l := upLeg(&w.conns[0])
	w.t.Sending = true
	w.t.Fill(0)
	w.t.Sending = false
	return l
}

// TestFloorParse feeds a stream split at every point.
func TestFloorParse(t *testing.T) {
	const first = "\x01\x00\x00\x00\x00\x00\x00\x00" // a message's number
	l := bareLeg()
	if want := bareFrame(1, floor.Message, "\x00\x00\x00\x00"+first+string(make([]byte, 128)))[:9+12]; !bytes.HasPrefix(l.pending, []byte(want)) {
		t.Fatalf("sent %q, want %q", l.pending, want)
	}
	stream := bareFrame(0, floor.Ack, first) + bareFrame(0, floor.Message, "\x01\x00\x00\x00"+first+"no stamp") +
		bareFrame(0, floor.Ping, "\x01") + bareFrame(0, floor.Ping, "\x00")
	for at := range len(stream) {
		l := bareLeg()
		tr := l.conn.wire.t
		l.pending, l.awaited, l.conn.wire.awaited, l.conn.wire.settled = nil, true, 1, make(chan struct{})
		carry, err := feed(l, stream[:at], stream[at:])
		if err != nil {
			t.Fatalf("split at %d: %v", at, err)
		}
		if len(carry) > 0 || tr.Ledger.Acked() != 1 || tr.Ledger.Faults() != (ledger.Faults{Corrupted: 1}) || len(l.pending) > 0 || l.awaited {
			t.Fatalf("split at %d: carry %q, outcomes %v, faults %+v, answers %q, awaited %v",
				at, carry, tr.Ledger.OutcomeWords(), tr.Ledger.Faults(), l.pending, l.awaited)
		}
	}
	for _, bad := range []string{bareFrame(0, floor.Message, "short"), bareFrame(2, floor.Message, string(make([]byte, 50))), bareFrame(0, floor.Ack, "1"),
		bareFrame(0, floor.Claim, ""), "\x00\x00\x00\x00"} {
		if _, err := feed(bareLeg(), bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
