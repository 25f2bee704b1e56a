package engine

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"

	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// tokens counts what the node has thought of acks.
type tokens struct{ forged, late, faults uint64 }

func (n *node) tokens() tokens {
	n.t.Helper()
	s := n.counters()
	return tokens{s.AcksForged, s.AcksLate, s.Faults[codec.FaultBadToken]}
}

func (n *node) expectTokens(before tokens, forged, late uint64) {
	n.t.Helper()
	want := tokens{before.forged + forged, before.late + late, before.faults + forged}
	if now := n.tokens(); now != want {
		n.t.Errorf("tokens were %+v, then %+v, want %+v", before, now, want)
	}
}

// A token that was never given to a session does nothing but harm to its own record, and the real
// receiver's ack counts (S8).
func TestForgedAck(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		by := n.watchOver()
		thieves := []*client{n.joinOn(0, "thief 0"), n.joinOn(1, "thief 1")}
		seq := from.send("from", "to", "secret")
		d := to.gets("from", "to", "secret")
		forged := changes(d.Token)
		forged["somebody else's"] = d.Token
		for _, thief := range thieves {
			for name, token := range forged {
				before := n.tokens()
				for _, code := range []codec.Code{codec.CodeAcked, codec.CodeRejected} {
					thief.write(codec.AppendAck(nil, &codec.Ack{Token: token, Code: code, Reply: []byte("evil")}))
					if e := thief.fault(codec.FaultBadToken); e.Flags != 0 || e.Kind != codec.KindAck || e.Message == "" {
						t.Errorf("%s: %+v", name, e)
					}
				}
				n.expectTokens(before, 2, 0)
			}
			thief.silent()
		}
		from.silent()
		to.ack(d, "real")
		if o := from.hears(seq, codec.CodeAcked); string(o.Reply) != "real" {
			t.Errorf("reply %q", o.Reply)
		}
		by.unharmed()
	})
}

// changes returns tokens that a session was never given, among them all that differ from one of its
// own by a bit.
func changes(given []byte) map[string][]byte {
	random := make([]byte, len(given))
	rand.Read(random)
	others := token.NewKeys(1, true)
	forged := map[string][]byte{
		"random":         random,
		"zero":           make([]byte, len(given)),
		"empty":          {},
		"one byte":       {1},
		"a byte less":    given[:len(given)-1],
		"a byte more":    append(bytes.Clone(given), 0),
		"of a report":    make([]byte, token.ReportLen),
		"over a link":    others.AppendLink(nil, make([]byte, token.AckLen), routing.Handle{}, 0),
		"without a seal": given[:token.AckLen],
		"48 bytes":       make([]byte, codec.MaxToken),
	}
	for bit := range 8 * len(given) {
		flipped := bytes.Clone(given)
		flipped[bit/8] ^= 1 << (bit % 8)
		forged[fmt.Sprintf("bit %d flipped", bit)] = flipped
	}
	return forged
}

// A token that was used is late from the session that had it, and forged from any other; so is one
// with a bit flipped, whether its message is pending or has ended (S8).
func TestForgedIsNotLate(t *testing.T) {
	long(t)
	t.Parallel()
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		thief := n.joinOn(1, "thief")
		message := func(payload string) codec.Deliver {
			from.send("from", "to", payload)
			return to.gets("from", "to", payload)
		}
		used := message("used")
		to.ack(used, "")
		from.outcome()
		live := message("live")
		for range 5000 { // the place of the one that was used has had others since
			to.ack(message("more"), "")
			from.outcome()
		}
		forge := func(c *client, name string, token []byte) {
			t.Helper()
			before := n.tokens()
			c.write(codec.AppendAck(nil, &codec.Ack{Token: token, Code: codec.CodeAcked}))
			c.fault(codec.FaultBadToken)
			d := live
			d.Token = token
			c.notHere(d)
			if e := c.fault(codec.FaultBadToken); e.Kind != codec.KindNotHere {
				t.Errorf("%s: %+v", name, e)
			}
			n.expectTokens(before, 2, 0)
		}
		forge(thief, "used by another session", used.Token)
		forge(thief, "live at another session", live.Token)
		for _, token := range [][]byte{used.Token, live.Token} {
			for name, changed := range changes(token) {
				forge(to, name, changed)
			}
		}
		before := n.tokens()
		to.ack(used, "again")
		to.silent()
		n.expectTokens(before, 0, 1)
	})
}

// A second ack and one after the deadline are late: counted, and nothing else.
func TestLateAck(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		by := n.watchOver()
		seq := from.send("from", "to", "once")
		d := to.gets("from", "to", "once")
		to.ack(d, "first")
		from.hears(seq, codec.CodeAcked)
		before := n.tokens()
		for range 3 {
			to.ack(d, "again")
		}
		to.silent()
		from.silent()
		n.expectTokens(before, 0, 3)

		from.seq++
		from.write(sendFrame(from.seq, "from", "to", "hurry", codec.FlagAck, 30))
		d = to.gets("from", "to", "hurry")
		from.hears(from.seq, codec.CodeTimeout)
		before = n.tokens()
		to.ack(d, "too late")
		to.silent()
		from.silent()
		n.expectTokens(before, 0, 1)

		// Of a message that was delivered to a connection that has ended since.
		second := n.dial()
		second.hello(to.resume())
		seq = from.send("from", "to", "where are you")
		n.settle()
		receiver, other, got := to, second, to.arrived()
		if len(got) == 0 {
			receiver, other, got = second, to, second.arrived()
		}
		to.decoded(codec.DecodeDeliver(got[0].body, &d))
		receiver.nc.Close()
		from.hears(seq, codec.CodeLost)
		before = n.tokens()
		other.ack(d, "too late")
		other.silent()
		from.silent()
		n.expectTokens(before, 0, 1)
		by.unharmed()
	})
}

// A session may ack on any of its connections.
func TestAckOnAnotherConnection(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		for loop := range 2 {
			other := n.dial()
			other.hello(to.resume())
			if loop == 1 {
				other.ack(d, "from the other side")
				if o := from.hears(seq, codec.CodeAcked); string(o.Reply) != "from the other side" {
					t.Errorf("reply %q", o.Reply)
				}
			}
		}
	})
}

// Tokens of reports may be acked, by whoever likes: nobody waits.
func TestAckOfReport(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		before := n.tokens()
		from.post("from", "to", "report", codec.FlagReport)
		from.post("from", "to", "plain", 0)
		d := to.gets("from", "to", "report")
		if len(d.Token) == 0 {
			t.Error("a message with report has no token")
		}
		to.ack(d, "")
		if d := to.gets("from", "to", "plain"); len(d.Token) != 0 {
			t.Error("a message that nobody asks about has a token")
		}
		to.silent()
		from.silent()
		n.expectTokens(before, 0, 0)
	})
}

// A frame that gives back many messages which were never delivered is answered with one error, or
// one for each of its slices: else it would cost ten times its bytes.
func TestManyBadTokens(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		liar := n.join()
		const made = 1000
		list := make([]codec.Recipient, made)
		for i := range list {
			list[i].To = []byte{'x'}
		}
		liar.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &codec.DeliverMany{}, list))
		n.eventually("all are refused", func() bool { return n.counters().AcksForged == made })
		if errors := len(liar.arrived()); errors < 1 || errors > 10 {
			t.Errorf("%d error frames", errors)
		}
	})
}
