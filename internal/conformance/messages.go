package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"distmsg/codec"
)

// messages is what was delivered to the client, and what the client has sent. It checks each answer
// and each send. The scenario's goroutine owns it.
type messages struct {
	play       *play
	deliveries []*delivery
	tokens     map[string]*delivery
	sent       []*send // all sends and posts, without the reports
	serial     uint64  // of tokens
}

// delivery is a message that was delivered to the client.
type delivery struct {
	codec.Deliver
	conn     *conn
	frame    []byte
	foreign  bool // the client does not hold To under Epoch: it must return it
	acks     int
	returned bool
	void     bool // its connection has ended
}

func (d *delivery) own() bool { return !d.foreign }

// deliver delivers a message that is the client's own. It fills in what f omits: the message
// requests an ack, and the epoch is the one that the client holds.
func (ms *messages) deliver(c *conn, f codec.Deliver) *delivery {
	f.Flags |= codec.FlagAck
	return ms.transmit(c, f, false)
}

// transmit delivers a message with the flags of f.
func (ms *messages) transmit(c *conn, f codec.Deliver, foreign bool) *delivery {
	if f.Epoch == 0 {
		f.Epoch = ms.play.bindings.epochs[string(f.To)]
	}
	d := ms.note(c, f, foreign)
	d.frame = codec.AppendDeliver(nil, &d.Deliver)
	ms.play.put(c, d.frame)
	return d
}

// stray delivers a message that the client must return.
func (ms *messages) stray(c *conn, f codec.Deliver) *delivery { return ms.transmit(c, f, true) }

// note fills in the rest of a message and records it.
func (ms *messages) note(c *conn, f codec.Deliver, foreign bool) *delivery {
	if f.From == nil {
		f.From = []byte(Operator)
	}
	if f.TTL == 0 && f.Flags&codec.FlagAck != 0 {
		f.TTL = 20_000
	}
	if f.Token == nil && f.Flags&codec.FlagAck != 0 {
		ms.serial++
		f.Token = binary.BigEndian.AppendUint64(nil, 0xfe00_0000_0000_0000|ms.serial) // not UTF-8
	}
	d := &delivery{Deliver: f, conn: c, foreign: foreign}
	ms.deliveries = append(ms.deliveries, d)
	if len(f.Token) > 0 {
		ms.tokens[string(f.Token)] = d
	}
	return d
}

// acked waits for the ack of a delivery.
func (ms *messages) acked(d *delivery, section, expected string) {
	ms.play.until(d.conn, section, expected, func() bool { return d.acks > 0 })
}

// comesBack waits until the client has returned a delivery.
func (ms *messages) comesBack(d *delivery, section, expected string) {
	ms.play.until(d.conn, section, expected, func() bool { return d.returned })
}

// ack checks an ack against the delivery that it answers.
func (ms *messages) ack(c *conn, frame []byte) {
	var f codec.Ack
	ms.play.well(c, codec.DecodeAck(frame[codec.PrefixLen:], &f), frame)
	d := ms.tokens[string(f.Token)]
	switch {
	case d == nil:
		ms.play.blame(c, secMessages, "an ack has the token of a deliver, byte by byte", "an ack with a token that no deliver had", frame)
	case d.void: // late, but harmless
		return
	case d.Flags&codec.FlagAck == 0:
		ms.play.blame(c, secMessages, "no ack for a deliver whose flags have bit 0 clear", "an ack", frame)
	case d.foreign:
		ms.play.blame(c, secMessages, fmt.Sprintf("the client returns what is delivered to an ID that it does not hold, or not under that epoch, as not_here (%q under epoch %d)", d.To, d.Epoch), "an ack", frame)
	case d.acks > 0:
		ms.play.blame(c, secMessages, "the client acks a deliver exactly once", "a second ack", frame)
	case d.returned:
		ms.play.blame(c, secMessages, "the client answers a deliver once", "an ack after a not_here", frame)
	case uint64(len(f.Reply)) > c.limits.MaxPayload:
		ms.play.blame(c, secLimits, fmt.Sprintf("no reply over max_payload, which is %d bytes", c.limits.MaxPayload), fmt.Sprintf("a reply of %d bytes", len(f.Reply)), frame)
	case c.node != d.conn.node:
		ms.play.blame(c, secMessages, "the ack goes to the node that delivered", "an ack to another node", frame)
	}
	d.acks++
	ms.asAgreed(c, d, &f, frame)
}

// asAgreed checks that the ack is what the contract requires.
func (ms *messages) asAgreed(c *conn, d *delivery, f *codec.Ack, frame []byte) {
	reason, reject := strings.CutPrefix(string(d.Payload), RejectPrefix)
	switch {
	case reject && f.Code != codec.CodeRejected:
		ms.play.blame(c, secMessages, "code 16, rejected, as the application said", f.Code.String(), frame)
	case reject && string(f.Reason) != reason:
		ms.play.blame(c, secAck, fmt.Sprintf("the reason that the application gave, %q", reason), fmt.Sprintf("%q", f.Reason), frame)
	case reject:
	case f.Code != codec.CodeAcked:
		ms.play.blame(c, secMessages, "code 1, acked, as the application said", f.Code.String(), frame)
	case !bytes.Equal(f.Reply, d.Payload):
		ms.play.blame(c, contractSection, fmt.Sprintf("the program replies with the payload of the message, %d bytes, unchanged", len(d.Payload)), fmt.Sprintf("a reply of %d bytes that differs", len(f.Reply)), frame)
	}
}

func (ms *messages) notHere(c *conn, frame []byte) {
	var f codec.Deliver
	ms.play.well(c, codec.DecodeNotHere(frame[codec.PrefixLen:], &f), frame)
	ms.comeBack(c, ms.whichReturned(c, &f), &f, frame)
}

// whichReturned finds the delivery that a not_here returns: by its token or, without one, by its ID
// and payload.
func (ms *messages) whichReturned(c *conn, f *codec.Deliver) *delivery {
	if len(f.Token) > 0 {
		return ms.tokens[string(f.Token)]
	}
	for _, d := range ms.deliveries {
		if len(d.Token) == 0 && d.conn == c && !d.returned && bytes.Equal(d.To, f.To) && (len(f.Payload) == 0 || bytes.Equal(d.Payload, f.Payload)) {
			return d
		}
	}
	return nil
}

// comeBack checks what the client has returned.
func (ms *messages) comeBack(c *conn, d *delivery, f *codec.Deliver, frame []byte) {
	switch {
	case d == nil:
		ms.play.blame(c, secNotHere, "token, to and payload of not_here are those of a deliver", "a not_here that answers no deliver", frame)
	case d.void:
		return
	case d.own():
		ms.play.blame(c, secMessages, fmt.Sprintf("the client accepts what is delivered to an ID that it holds, under an epoch that is not greater (%q, held under %d, delivered under %d)", d.To, ms.play.bindings.epochs[string(d.To)], d.Epoch), "a not_here", frame)
	case d.returned:
		ms.play.blame(c, secMessages, "the client returns a deliver once", "a second not_here", frame)
	}
	if short := d.Short(); c.features&codec.FeatureShortNotHere == 0 || !sameDeliver(f, &short) {
		ms.sameFields(c, d, f, frame)
	}
	d.returned = true
}

// sameDeliver reports whether two of them have the same fields.
func sameDeliver(a, b *codec.Deliver) bool {
	return bytes.Equal(a.Token, b.Token) && bytes.Equal(a.To, b.To) && bytes.Equal(a.From, b.From) && bytes.Equal(a.Payload, b.Payload) &&
		a.TTL == b.TTL && a.Flags == b.Flags && a.Epoch == b.Epoch
}

// sameFields checks that a not_here has the fields of its deliver.
func (ms *messages) sameFields(c *conn, d *delivery, f *codec.Deliver, frame []byte) {
	for _, field := range []struct {
		name      string
		got, want []byte
	}{{"token", f.Token, d.Token}, {"to", f.To, d.To}, {"from", f.From, d.From}, {"payload", f.Payload, d.Payload}} {
		if !bytes.Equal(field.got, field.want) {
			ms.play.blame(c, secNotHere, fmt.Sprintf("the %s of the deliver, byte by byte: %s", field.name, hexOf(field.want)), hexOf(field.got), frame)
		}
	}
	if f.Flags != d.Flags || f.Epoch != d.Epoch {
		ms.play.blame(c, secNotHere, fmt.Sprintf("the flags and the epoch of the deliver, %d and %d", d.Flags, d.Epoch), fmt.Sprintf("%d and %d", f.Flags, f.Epoch), frame)
	}
	if f.TTL > d.TTL || d.TTL > 0 && f.TTL == 0 {
		ms.play.blame(c, secNotHere, fmt.Sprintf("the ttl of the deliver, %d, less the time that the client held it, and at least 1 (0 stays 0)", d.TTL), fmt.Sprint(f.TTL), frame)
	}
}

// send is a message of the client: a send, or one recipient of a multicast.
type send struct {
	codec.Send
	conn  *conn
	frame []byte
}

func (s *send) wantsOutcome() bool { return s.Flags&codec.FlagAck != 0 }

// send checks a send and answers it, unless the scenario answers it.
func (ms *messages) send(c *conn, frame []byte) {
	s := &send{conn: c, frame: frame}
	ms.play.well(c, codec.DecodeSend(frame[codec.PrefixLen:], &s.Send), frame)
	ms.admit(c, s)
	if !s.wantsOutcome() {
		ms.charge(c, frame)
	}
	ms.take(c, s)
}

// admit checks the rules for every message of the client.
func (ms *messages) admit(c *conn, s *send) {
	switch from := string(s.From); {
	case s.Flags&^(codec.FlagAck|codec.FlagReport) != 0:
		ms.play.blame(c, secSend, "flags besides ack and report are 0", fmt.Sprintf("flags %#x", s.Flags), s.frame)
	case uint64(len(s.Payload)) > c.limits.MaxPayload:
		ms.play.blame(c, secLimits, fmt.Sprintf("no payload over max_payload, which is %d bytes: the client answers too_large itself", c.limits.MaxPayload), fmt.Sprintf("a payload of %d bytes", len(s.Payload)), s.frame)
	case ms.play.bindings.epochs[from] == 0:
		ms.play.blame(c, secBindings, "the client waits for bound before it sends from an ID, and sends from none that it has lost", fmt.Sprintf("a send from %q", from), s.frame)
	case ms.play.bindings.due[from] && !c.resumedSession():
		ms.play.blame(c, secReconnect, "until an ID is bound again, a client sends nothing from it", fmt.Sprintf("a send from %q", from), s.frame)
	}
	if !s.wantsOutcome() {
		return
	}
	if c.sends[s.Seq] != nil {
		ms.play.blame(c, secSend, "seq is unique among the sends of a connection that wait for an outcome", fmt.Sprintf("seq %d twice", s.Seq), s.frame)
	}
	c.sends[s.Seq] = s
	if n := uint64(len(c.sends)); n > c.limits.MaxInFlight {
		ms.play.blame(c, secPolite, fmt.Sprintf("no more than max_in_flight sends that wait for an outcome, which is %d", c.limits.MaxInFlight), fmt.Sprintf("%d of them", n), s.frame)
	}
}

// charge subtracts a frame without ack from the credit.
func (ms *messages) charge(c *conn, frame []byte) {
	if c.used += uint64(len(frame)); c.used > c.credit {
		ms.play.blame(c, secMessages, fmt.Sprintf("no more bytes of sends without ack than the credit, which is %d in all", c.credit), fmt.Sprintf("%d bytes with this frame", c.used), frame)
	}
}

// take passes a message to the scenario, or ends it as acked.
func (ms *messages) take(c *conn, s *send) {
	switch {
	case string(s.To) == Report:
		ms.play.reports.heard(s)
		ms.outcome(s, codec.CodeAcked)
		return
	case ms.play.onSend != nil:
		ms.sent = append(ms.sent, s)
		ms.play.onSend(s)
		return
	}
	ms.sent = append(ms.sent, s)
	if s.wantsOutcome() {
		ms.outcome(s, codec.CodeAcked)
	}
}

// outcome ends a send.
func (ms *messages) outcome(s *send, code codec.Code) {
	delete(s.conn.sends, s.Seq)
	ms.play.put(s.conn, codec.AppendOutcome(nil, &codec.Outcome{Seq: s.Seq, Code: code}))
}

// sentTo returns the messages to an ID that have come.
func (ms *messages) sentTo(to string) (all []*send) {
	for _, s := range ms.sent {
		if string(s.To) == to {
			all = append(all, s)
		}
	}
	return all
}

// multicast handles a multicast as the sends that it stands for.
func (ms *messages) multicast(c *conn, frame []byte) {
	if c.limits.MaxMulticast == 0 {
		ms.play.blame(c, secMulticast, "no multicast at a node whose max_multicast is 0", "a multicast", frame)
	}
	var f codec.Multicast
	err := codec.DecodeMulticast(frame[codec.PrefixLen:], int(c.limits.MaxMulticast), &f)
	if e, ok := err.(*codec.Error); ok && e.Fault == codec.FaultTooMany {
		ms.play.blame(c, secMulticast, fmt.Sprintf("at most max_multicast IDs, which is %d", c.limits.MaxMulticast), e.Detail, frame)
	}
	ms.play.well(c, err, frame)
	if f.Flags&codec.FlagAck == 0 {
		ms.charge(c, frame)
	}
	for i, v := range ids(f.To) {
		s := &send{conn: c, frame: frame, Send: codec.Send{Seq: f.Seq + uint64(i), To: v.ID, From: f.From, TTL: f.TTL, Flags: f.Flags, Payload: f.Payload}}
		ms.admit(c, s)
		ms.take(c, s)
	}
}

// deliverMany delivers one payload to several IDs. Those that the client does not hold are foreign.
func (ms *messages) deliverMany(c *conn, to []codec.Recipient, foreign map[string]bool, payload string) (all []*delivery) {
	many := codec.DeliverMany{From: []byte(Operator), TTL: 20_000, Flags: codec.FlagAck, Payload: []byte(payload)}
	for i := range to {
		d := ms.note(c, codec.Deliver{To: to[i].To, Epoch: to[i].Epoch, TTL: many.TTL, Flags: many.Flags, Payload: many.Payload}, foreign[string(to[i].To)])
		to[i].Token = d.Token
		all = append(all, d)
	}
	frame := codec.AppendDeliverMany(nil, codec.KindDeliverMany, &many, to)
	for _, d := range all {
		d.frame = frame
	}
	ms.play.put(c, frame)
	return all
}

// notHereMany handles what the client returns of a deliver_many.
func (ms *messages) notHereMany(c *conn, frame []byte) {
	var f codec.DeliverMany
	ms.play.well(c, codec.DecodeDeliverMany(frame[codec.PrefixLen:], codec.KindNotHereMany, len(frame), &f), frame)
	for r, ok := f.To.Next(); ok; r, ok = f.To.Next() {
		one := f.Deliver(&r)
		ms.comeBack(c, ms.whichReturned(c, &one), &one, frame)
	}
}

// allAnswered checks that everything delivered has its answer.
func (ms *messages) allAnswered() {
	for _, d := range ms.deliveries {
		switch {
		case d.void:
		case d.own() && d.Flags&codec.FlagAck != 0 && d.acks == 0:
			ms.play.blame(d.conn, secMessages, "the client acks what is delivered to an ID that it holds", "it said bye without an ack", d.frame)
		case !d.own() && !d.returned:
			ms.play.blame(d.conn, secMessages, "the client returns what is delivered to an ID that it does not hold, as not_here", "it said bye without", d.frame)
		}
	}
}
