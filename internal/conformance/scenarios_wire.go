package conformance

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"distmsg/codec"
)

// Scenarios about the bytes: those of later versions, those that arrive in pieces, and those that
// are not frames.
var wireScenarios = []Scenario{
	{
		Name:   "future-fields",
		About:  "each frame has elements that this version does not know, and the widest forms of msgpack. The client skips the elements and reads the forms.",
		script: futureFields,
	},
	{
		Name:   "future-kinds",
		About:  "frames of kinds that this version does not know. The client ignores them.",
		script: futureKinds,
	},
	{
		Name:   "future-codes",
		About:  "outcomes and answers with codes that this version does not know. The client uses their range.",
		script: futureCodes,
	},
	{
		Name:   "future-faults",
		About:  "error frames with faults and flags that this version does not know. The client uses bit 0 of the flags.",
		script: futureFaults,
	},
	{
		Name:   "pieces",
		About:  "each byte comes alone, then many frames come at once, then half a frame. The client reads them all.",
		script: pieces,
	},
	{
		Name:   "no-frames",
		About:  "bytes that are no frame, and kinds that only clients send. The client closes the connection and reconnects.",
		script: noFrames,
	},
	{
		Name:   "bad-utf8",
		About:  "senders and reasons that are not valid UTF-8. The client accepts them, and returns the bytes as they were.",
		script: badUTF8,
	},
}

func futureFields(p *play) {
	p.dress = future
	c := p.first()
	p.works(c, secFrames, "after frames with unknown elements")
	p.instruct(c, "%s carol 1 5", doSend)
	p.reports.outcomes(secFrames, "the send was acked", "carol", 1, "acked", "yes")
	p.put(c, codec.AppendMembers(nil, []codec.Member{{Node: "n1", Addr: c.node.addr}, {Node: "n9"}}))
	p.put(c, codec.AppendCredit(nil, c.credit))
	p.put(c, codec.AppendKick(nil, Alice, 1))
	p.put(c, codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultBadToken, Message: "an error that closes nothing"}))
	p.ping(c, 42)
	p.works(c, secFrames, "after frames with unknown elements")
	d := p.messages.stray(c, codec.Deliver{To: []byte("mallory"), Epoch: 7, Flags: codec.FlagAck})
	p.messages.comesBack(d, secMessages, "not_here for an ID that the client does not hold")
}

func futureKinds(p *play) {
	c := p.first()
	for _, frame := range [][]byte{
		raw(0x91, 120),
		raw(0x93, 127, 0x01, 0xa1, 'x'),
		raw(0x92, 110, 0x82, 0xa1, 'a', 0xc0, 0xa1, 'b', 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0),
		raw(0xdc, 0, 2, 0xcc, 113, 0xc4, 0x00),
		raw(0xdd, 0, 0, 0, 2, 0xcc, 114, 0x90),
		codec.AppendGone(nil, c.session.id), // a kind for links between nodes
	} {
		p.put(c, frame)
		p.works(c, secFrames, "after a kind that it does not know")
	}
}

func futureCodes(p *play) {
	c := p.first()
	codes := []struct {
		code      codec.Code
		delivered string
	}{{5, "yes"}, {20, "yes"}, {40, "no"}, {55, "no"}, {70, "no"}, {90, "unknown"}, {100, "unknown"}}
	p.onSend = func(*send) {}
	p.instruct(c, "%s carol %d 5", doSend, len(codes))
	p.until(c, secMessages, "the client sends what the application asks for", func() bool { return len(p.messages.sent) == len(codes) })
	for _, s := range p.messages.sent {
		k, _ := strconv.Atoi(strings.TrimRight(string(s.Payload), "."))
		if k < 1 || k > len(codes) {
			p.blame(c, contractSection, fmt.Sprintf("the payloads are the numbers from 1 to %d, each filled up with dots to 5 bytes", len(codes)), fmt.Sprintf("%q", s.Payload), s.frame)
		}
		p.messages.outcome(s, codes[k-1].code)
	}
	p.onSend = nil
	for i, v := range codes {
		word := v.code.String()
		if v.code < codec.CodeRejected {
			// the range says delivered, and not every client keeps the number
			word = codec.CodeAcked.String()
		}
		p.reports.toldOne(secCodes, fmt.Sprintf("code %d is in a range that says delivered: %s", v.code, v.delivered),
			fmt.Sprintf("%s carol %d %v %s", saysOutcome, i+1, v.code, v.delivered), fmt.Sprintf("%s carol %d %s %s", saysOutcome, i+1, word, v.delivered))
	}
	p.onBind = func(c *conn, b *bind) { p.bindings.answerAll(c, b, 75) }
	p.askBind(c, doBind, "dave")
	p.reports.told(secCodes, "a bind has failed if its code says that a retry is useless", saysBound+" dave code_75")
	p.during(settle)
	p.onBind = nil
	p.works(c, secCodes, "after unknown codes")
}

func futureFaults(p *play) {
	c := p.first()
	p.put(c, codec.AppendError(nil, &codec.ErrorFrame{Fault: 99, Flags: 0x06, Message: "of the future"}))
	p.works(c, secFaults, "after an error without bit 0")
	before := len(p.conns)
	p.put(c, codec.AppendError(nil, &codec.ErrorFrame{Fault: 100, Flags: 0x05, Message: "of the future"}))
	p.hangUp(c)
	p.until(c, secFaults, "the client closes after an error with bit 0", func() bool { return c.ended })
	c = p.again(before, secReconnect, "the client connects again")
	p.resumes(c)
	p.works(c, secReconnect, "after an error of the future")
}

// resumes checks that a connection resumed the session of the first one.
func (p *play) resumes(c *conn) {
	if !c.resumed {
		p.blame(c, secReconnect, "hello has the session and the secret of the latest welcome", "a hello that asks for a new session", nil)
	}
}

func pieces(p *play) {
	p.trickle = true
	c := p.first()
	p.works(c, secFrames, "after frames that came byte by byte")
	p.instruct(c, "%s carol 1 5", doSend)
	p.reports.outcomes(secFrames, "the send was acked", "carol", 1, "acked", "yes")
	p.trickle = false

	var all []*delivery
	var batch []byte
	for i := range 300 {
		d := p.messages.note(c, codec.Deliver{To: []byte(Bob), Epoch: p.bindings.epochs[Bob], Flags: codec.FlagAck, Payload: Numbered(i, 100)}, false)
		d.frame = codec.AppendDeliver(nil, &d.Deliver)
		batch, all = append(batch, d.frame...), append(all, d)
	}
	c.pings[7] = true
	batch = codec.AppendPing(batch, 7)
	half := len(batch) - 1000
	p.write(c, batch[:half])
	select { // do not answer anything meanwhile: half of a frame is written
	case <-time.After(settle / 3):
	case <-p.ctx.Done():
	}
	p.write(c, batch[half:])
	for _, d := range all {
		p.messages.acked(d, secFrames, "the client reads all frames of one segment, and the one that spans two")
	}
	p.until(c, secFrames, "the client reads the last frame of a segment, a ping", func() bool { return !c.pings[7] })
}

func noFrames(p *play) {
	c := p.first()
	for _, bad := range []struct {
		what  string
		bytes []byte
	}{
		{"a length of 0", []byte{0, 0, 0, 0}},
		{"a length over max_frame, without the rest", []byte{0x7f, 0, 0, 0}},
		{"a body that is no array", raw(0x81, 0x21, 0x01)},
		{"a deliver with too few fields", raw(0x92, byte(codec.KindDeliver), 0xc4, 0x00)},
		{"a kind that only clients send", codec.AppendBye(nil)},
	} {
		before := len(p.conns)
		p.write(c, bad.bytes)
		p.until(c, secFrames, "the client closes the connection on "+bad.what, func() bool { return c.ended })
		c = p.again(before, secReconnect, "the client connects again")
		p.resumes(c)
		p.works(c, secReconnect, "after "+bad.what)
	}
}

func badUTF8(p *play) {
	c := p.first()
	bad := []byte{'e', 'v', 0xff, 0xc3, 0x28, 0x80, 'e'}
	p.messages.acked(p.messages.deliver(c, codec.Deliver{To: []byte(Alice), From: bad, Payload: []byte("hello")}), secFrames, "the client accepts a message whose from is not valid UTF-8")
	p.onSend = func(s *send) {
		delete(s.conn.sends, s.Seq)
		p.put(s.conn, codec.AppendOutcome(nil, &codec.Outcome{Seq: s.Seq, Code: codec.CodeRejected, Reason: bad}))
	}
	p.instruct(c, "%s carol 1 5", doSend)
	p.reports.outcomes(secFrames, "the send was rejected, for a reason that is not valid UTF-8", "carol", 1, "rejected", "yes")
	d := p.messages.stray(c, codec.Deliver{To: []byte("mallory"), From: bad, Epoch: 7, Flags: codec.FlagAck, Payload: []byte{0xff, 0xfe}})
	p.messages.comesBack(d, secNotHere, "not_here with the bytes of from as they were")
}
