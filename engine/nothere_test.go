package engine

import (
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

func (c *client) notHere(d codec.Deliver) {
	c.t.Helper()
	c.write(codec.AppendNotHere(nil, &d))
}

// Nobody else holds the ID: no_route, and the binding that led to the wrong session goes (S14,
// S11).
func TestNotHere(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		to.bind("other")
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		d.TTL--
		to.notHere(d)
		from.hears(seq, codec.CodeNoRoute)
		n.settle()
		if code := from.lookupCode("to"); code != codec.CodeNoRoute {
			t.Errorf("lookup: %v; a disowned binding stands", code)
		}
		from.hears(from.send("from", "to", "hi"), codec.CodeNoRoute)
		from.exchange("from", to, "other")

		// Again: its token has ended.
		before := n.tokens()
		to.notHere(d)
		to.silent()
		from.silent()
		n.expectTokens(before, 0, 1)
	})
}

// Only the binding that the message came by goes, and only if it still stands.
func TestNotHereOfOldEpoch(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		for _, flags := range []uint8{codec.FlagAck, codec.FlagReport, 0} {
			from.seq++
			from.write(sendFrame(from.seq, "from", "to", "hi", flags, 0))
			d := to.gets("from", "to", "hi")
			epoch := to.bind("to")
			to.notHere(d)
			switch flags {
			case codec.FlagAck: // the same session under another epoch: worth another try
				again := to.gets("from", "to", "hi")
				if again.Epoch != epoch {
					t.Errorf("epoch %d, want %d", again.Epoch, epoch)
				}
				to.ack(again, "")
				from.hears(from.seq, codec.CodeAcked)
			case codec.FlagReport: // it is bound, so nobody hears that it is not
				from.hears(from.seq, codec.CodeUnreachable)
			}
			n.settle()
			if r := from.lookup("to")[0]; r != (codec.Result{Epoch: epoch}) {
				t.Errorf("flags %d: %v, want %d", flags, r, epoch)
			}
			to.silent()
		}
	})
}

// Somebody else holds it by now: the message goes there, once.
func TestRedirect(t *testing.T) {
	long(t)
	t.Parallel()
	for name, loop := range map[string]int{"same loop": 0, "other loop": 1} {
		t.Run(name, func(t *testing.T) {
			acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
				next := n.joinOn(loop)
				for _, last := range []string{"ack", "not here", "dies", "silence"} {
					to.bind("x")
					n.settle()
					next.arrived() // a kick, perhaps
					ttl := uint32(50_000)
					if last == "silence" {
						ttl = 300
					}
					from.seq++
					began := time.Now()
					from.write(sendFrame(from.seq, "from", "x", "hi", codec.FlagAck, ttl))
					d := to.gets("from", "x", "hi")
					epoch := next.bind("x")
					to.kicked("x", epoch)
					back := d
					switch last {
					case "dies": // a lie
						back.TTL = 1 << 31
					case "silence":
						back.TTL = 0
					default:
						back.TTL -= 10
					}
					to.notHere(back)
					again := next.gets("from", "x", "hi")
					if again.Epoch != epoch || again.TTL > min(max(back.TTL, 1), uint32(n.limits.MaxTTL)) || again.TTL == 0 || again.Flags != codec.FlagAck {
						t.Errorf("%+v, want epoch %d and at most %d ms", again, epoch, back.TTL)
					}
					// The first one has no say any more: it had this token, and gave the message
					// back.
					before := n.tokens()
					to.ack(d, "me after all")
					to.silent()
					n.expectTokens(before, 0, 1)
					switch last {
					case "ack":
						next.ack(again, "mine")
						if o := from.hears(from.seq, codec.CodeAcked); string(o.Reply) != "mine" {
							t.Errorf("reply %q", o.Reply)
						}
					case "not here": // no third try, though somebody holds it
						to.bind("x")
						next.expect(codec.KindKick)
						next.notHere(again)
						from.hears(from.seq, codec.CodeUnreachable)
						to.silent()
					case "dies":
						next.nc.Close()
						from.hears(from.seq, codec.CodeLost)
						next = n.joinOn(loop)
					case "silence": // the deadline is that of the send
						from.hears(from.seq, codec.CodeTimeout)
						if took := time.Since(began); took < 298*time.Millisecond {
							t.Errorf("timeout after %v, which is too soon", took)
						}
					}
					from.silent()
					to.arrived()
				}
			})
		})
	}
}

// The death of the first receiver does not end what has gone elsewhere.
func TestRedirectSurvivesFirst(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		next := n.joinOn(1)
		seq := from.send("from", "to", "hi")
		d := to.gets("from", "to", "hi")
		next.bind("to")
		to.expect(codec.KindKick)
		to.notHere(d)
		again := next.gets("from", "to", "hi")
		to.nc.Close()
		n.eventually("it is gone", func() bool { return len(n.table.Session(to.sessionID()).Handles()) == 0 })
		from.silent()
		next.ack(again, "")
		from.hears(seq, codec.CodeAcked)
	})
}

// A redirect that finds no room ends no_route, and nothing is written.
func TestRedirectNoRoom(t *testing.T) {
	n := start(t, Config{DefaultTTL: time.Minute})
	from, to, next := n.join("from"), n.join("to"), n.join()
	seq := from.send("from", "to", "hi")
	d := to.gets("from", "to", "hi")
	next.bind("to")
	to.expect(codec.KindKick)
	next.nc.Close()
	n.eventually("it is detached", func() bool { return from.lookupCode("to") == codec.CodeUnreachable })
	to.notHere(d)
	if o := from.outcome(); o.Seq != seq || o.Code.Delivered() != codec.DeliveredNo {
		t.Errorf("%d %v", o.Seq, o.Code)
	}
}

// What comes back must be what was delivered; if not, it is refused, and the message stays with its
// receiver.
func TestNotHereForged(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		by := n.watchOver()
		thief := n.joinOn(1, "thief")
		epoch := to.bind("x")
		seq := from.send("from", "x", "payload")
		d := to.gets("from", "x", "payload")
		newEpoch := thief.bind("x") // so that a redirect would find somebody
		to.kicked("x", newEpoch)
		for name, change := range map[string]func(*codec.Deliver){
			"payload":        func(d *codec.Deliver) { d.Payload = []byte("PAYLOAD") },
			"longer payload": func(d *codec.Deliver) { d.Payload = []byte(strings.Repeat("x", 200_000)) },
			"no payload":     func(d *codec.Deliver) { d.Payload = nil },
			"from":           func(d *codec.Deliver) { d.From = []byte("thief") },
			"no from":        func(d *codec.Deliver) { d.From = nil },
			"to":             func(d *codec.Deliver) { d.To = []byte("thief") },
			"to and from":    func(d *codec.Deliver) { d.To, d.From = []byte("xf"), []byte("rom") },
			"epoch":          func(d *codec.Deliver) { d.Epoch++ },
			"epoch 0":        func(d *codec.Deliver) { d.Epoch = 0 },
			"flags, report":  func(d *codec.Deliver) { d.Flags |= codec.FlagReport },
			"flags, more":    func(d *codec.Deliver) { d.Flags |= 128 },
			"flags, no ack":  func(d *codec.Deliver) { d.Flags = codec.FlagReport },
			"token":          func(d *codec.Deliver) { d.Token = []byte{1, 2, 3, 4, 5, 6, 7, 8} },
			"no token":       func(d *codec.Deliver) { d.Token = nil },
		} {
			t.Run(name, func(t *testing.T) {
				before := n.tokens()
				bad := d
				change(&bad)
				to.notHere(bad)
				if e := to.fault(codec.FaultBadToken); e.Kind != codec.KindNotHere || e.Flags != 0 {
					t.Errorf("%+v", e)
				}
				n.expectTokens(before, 1, 0)
			})
		}
		before := n.tokens()
		thief.notHere(d)
		thief.fault(codec.FaultBadToken)
		n.expectTokens(before, 1, 0)
		if r := from.lookup("x")[0]; r.Epoch != newEpoch || newEpoch <= epoch {
			t.Errorf("%v, want %d", r, newEpoch)
		}
		thief.silent()
		from.silent()
		to.ack(d, "fine")
		from.hears(seq, codec.CodeAcked)
		by.unharmed()
	})
}

// Without ack nobody kept the message: it is counted, and reported if asked.
func TestNotHereUnacked(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		next := n.joinOn(1)
		plain, report := from.post("from", "to", "plain", 0), from.post("from", "to", "report", codec.FlagReport)
		d1, d2 := to.gets("from", "to", "plain"), to.gets("from", "to", "report")
		next.bind("to")
		to.expect(codec.KindKick)
		to.notHere(d1)
		to.notHere(d2)
		from.hears(report, codec.CodeUnreachable) // next holds it
		from.silent()
		next.silent()
		s := n.counters()
		if s.Bounced != 2 || s.Written != 2 || s.Outcomes[codec.CodeNoRoute] != 0 {
			t.Errorf("%+v, plain was %d", s, plain)
		}
		// A report token that was made up.
		before := n.tokens()
		d2.Token = append([]byte(nil), d2.Token...)
		d2.Token[len(d2.Token)-9]++
		to.notHere(d2)
		to.fault(codec.FaultBadToken)
		n.expectTokens(before, 1, 0)
		from.silent()

		// One that comes back twice, and a message that never was: nothing was delivered that they
		// could be.
		d2.Token[len(d2.Token)-9]--
		to.notHere(d2)
		to.fault(codec.FaultBadToken)
		d1.Token = nil
		to.notHere(d1)
		to.fault(codec.FaultBadToken)
		n.expectTokens(before, 3, 0)
		from.silent()
		if s := n.counters(); s.Bounced != 2 {
			t.Errorf("%d bounced", s.Bounced)
		}

		// Its sender has gone meanwhile.
		next.exchange("to", from, "from")
		from.post("from", "to", "bye", codec.FlagReport)
		d := next.gets("from", "to", "bye")
		from.nc.Close()
		n.eventually("it is gone", func() bool { return len(n.table.Session(from.sessionID()).Handles()) == 0 })
		stranger := n.joinOn(0, "stranger") // in the slot of the one that left
		next.notHere(d)
		next.silent()
		stranger.silent()
	})
}
