package drive

import (
	"bytes"
	"testing"

	"distmsg/loadtest/internal/ledger"
)

// TestNATSParse feeds a stream split at every point.
func TestNATSParse(t *testing.T) {
	newConn := func() *leg {
		w := newTestWire(2, newNATS)
		l := upLeg(&w.conns[0])
		w.t.Sending = true
		return l
	}
	c := newConn()
	tr := c.conn.wire.t
	sends := c.proto.open(nil)
	tr.Fill(0) // one message from connection 0 to connection 1
	if !bytes.Contains(c.pending, []byte("PUB lt-00000001-1 _INBOX.0000000000000001.0.1 128\r\n")) {
		t.Fatalf("sent %q, %q", sends, c.pending)
	}
	stream := "INFO {\"version\":\"2.15.2\",\"max_payload\":1000}\r\n+OK\r\nPING\r\nMSG _INBOX.0000000000000001.0.1 0 0\r\n\r\n" +
		"MSG lt-00000001-0 1 _INBOX.x.1 5\r\nab\r\nc\r\n-ERR 'x'\r\n"
	for at := range len(stream) {
		c := newConn()
		tr := c.conn.wire.t
		tr.Fill(0)
		tr.Sending = false
		c.pending = nil
		carry, err := feed(c, stream[:at], stream[at:])
		if err != nil {
			t.Fatalf("split at %d: %v", at, err)
		}
		if tr.Server != "nats-server 2.15.2" {
			t.Fatalf("split at %d: the server is %q", at, tr.Server)
		}
		if len(carry) > 0 || tr.Ledger.Acked() != 1 || tr.Ledger.Faults() != (ledger.Faults{Corrupted: 1}) ||
			string(c.pending) != "PONG\r\n" {
			t.Fatalf("split at %d: carry %q, outcomes %v, faults %+v, answers %q",
				at, carry, tr.Ledger.OutcomeWords(), tr.Ledger.Faults(), c.pending)
		}
	}
	for _, bad := range []string{"MSG a 1 x\r\n", "MSG a 1 99999999999999999999\r\n", "MSG\r\n", "HTTP/1.1 400\r\n",
		"MSG _INBOX.0000000000000001.0. 0 0\r\n\r\n", "INFO {\r\n", "INFO {\"max_payload\":5}\r\n"} {
		if _, err := newConn().proto.parse([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
