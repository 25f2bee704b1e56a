package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"distmsg/codec"
)

// prefixed puts the length of body in front of it.
func prefixed(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// raw is like prefixed, for bytes that are easier to write as text.
func raw(parts ...string) []byte { return prefixed([]byte(strings.Join(parts, ""))...) }

// offence is input that breaks the protocol's rules.
type offence struct {
	name  string
	bytes []byte
	fault codec.Fault
	kind  codec.Kind // in the error frame
	says  string     // the message names what and where
}

var longID = strings.Repeat("x", codec.MaxID+1)

// offences returns inputs that a client must not send on an open connection.
func offences(limits codec.Limits) []offence {
	tooLong := binary.BigEndian.AppendUint32(nil, uint32(limits.MaxFrame)+1)
	manyIDs := make([][]byte, limits.MaxIDs+1)
	for i := range manyIDs {
		manyIDs[i] = []byte("i")
	}
	all := []offence{
		{"zero length", []byte{0, 0, 0, 0}, codec.FaultZeroLength, 0, "frame.length at byte 0"},
		{"length over max_frame, nothing behind it", tooLong, codec.FaultFrameTooLarge, 0, "the limit is"},
		{"length of 4 GiB", []byte{0xff, 0xff, 0xff, 0xff}, codec.FaultFrameTooLarge, 0, "4294967295"},

		{"an empty array", raw("\x90"), codec.FaultBadLength, 0, "frame.kind at byte 0"},
		{"too few fields", raw("\x92\x20\x01"), codec.FaultBadLength, codec.KindSend, "send at byte 0: 2 elements"},
		{"array ends early", raw("\x97\x20\x01\xa1a\xa1b\x00\x01\xc4\x05hi"), codec.FaultBadLength, codec.KindSend, "send.payload at byte 9"},
		{"array header cut short", raw("\xdc\x00"), codec.FaultBadLength, 0, "at byte 0"},
		{"bytes behind the array", raw("\x92\x03\x01\x01"), codec.FaultBadLength, codec.KindPing, "1 bytes follow"},
		{"bytes behind bye", raw("\x91\x08\xc0"), codec.FaultBadLength, codec.KindBye, "1 bytes follow"},

		{"a string", raw("\xa5hello"), codec.FaultWrongType, 0, "at byte 0: 0xa5 is not an array"},
		{"nil", raw("\xc0"), codec.FaultWrongType, 0, "at byte 0"},
		{"a map", raw("\x81\x01\x02"), codec.FaultWrongType, 0, "at byte 0"},
		{"the kind is a string", raw("\x92\xa1a\x01"), codec.FaultWrongType, 0, "kind at byte 1"},
		{"a float as nonce", raw("\x92\x03\xca\x00\x00\x00\x00"), codec.FaultWrongType, codec.KindPing, "ping.nonce at byte 2"},
		{"to is bin", raw("\x97\x20\x01\xc4\x01a\xa1b\x00\x01\xc4\x00"), codec.FaultWrongType, codec.KindSend, "send.to at byte 3"},
		{"payload is a string", raw("\x97\x20\x01\xa1a\xa1b\x00\x01\xa2hi"), codec.FaultWrongType, codec.KindSend, "send.payload at byte 9"},
		{"payload is nil", raw("\x97\x20\x01\xa1a\xa1b\x00\x01\xc0"), codec.FaultWrongType, codec.KindSend, "send.payload at byte 9"},
		{"token is a string", raw("\x95\x22\xa1t\x01\xa0\xc4\x00"), codec.FaultWrongType, codec.KindAck, "ack.token at byte 2"},
		{"ids is a map", raw("\x94\x10\x01\x00\x81\xa1a\x00"), codec.FaultWrongType, codec.KindBind, "bind.ids at byte 4"},
		{"an ID in lookup is a number", raw("\x93\x14\x01\x91\x05"), codec.FaultWrongType, codec.KindLookup, "lookup.ids at byte 4"},

		{"an extension nested 17 deep", raw("\x93\x03\x01", strings.Repeat("\x91", 16), "\x01"), codec.FaultTooDeep, codec.KindPing, "ping.extension at byte 18"},
		{"an extension nested 60,000 deep", raw("\x93\x03\x01", strings.Repeat("\x91", 60_000), "\x01"), codec.FaultTooDeep, codec.KindPing, "ping.extension"},

		{"4 billion fields", raw("\xdd\xff\xff\xff\xff\x03\x01"), codec.FaultTooMany, codec.KindPing, "4294967295 elements"},
		{"4 billion fields that are not there", raw("\xdd\xff\xff\xff\xff"), codec.FaultTooMany, 0, "4294967295 elements"},
		{"4 billion IDs", raw("\x94\x10\x01\x00\xdd\xff\xff\xff\xff"), codec.FaultTooMany, codec.KindBind, "bind.ids at byte 4"},
		{"a payload of 4 GiB", raw("\x97\x20\x01\xa1a\xa1b\x00\x01\xc6\xff\xff\xff\xff"), codec.FaultBadLength, codec.KindSend, "send.payload at byte 9"},
		{"an extension map of 4 billion", raw("\x93\x03\x01\xdf\xff\xff\xff\xff"), codec.FaultTooMany, codec.KindPing, "ping.extension at byte 3"},
		{"max_ids + 1 in lookup", codec.AppendLookup(nil, 1, manyIDs), codec.FaultTooMany, codec.KindLookup, "the limit is"},
		{"max_ids + 1 in bind", codec.AppendBind(nil, 1, 0, make([]codec.IDEpoch, limits.MaxIDs+1)), codec.FaultTooMany, codec.KindBind, "the limit is"},
		{"max_ids + 1 in watch", codec.AppendWatch(nil, 1, manyIDs), codec.FaultTooMany, codec.KindWatch, "the limit is"},
		{"max_ids + 1 in unwatch", codec.AppendUnwatch(nil, manyIDs), codec.FaultTooMany, codec.KindUnwatch, "the limit is"},
		{"max_ids + 1 in unbind", codec.AppendUnbind(nil, 1, make([]codec.IDEpoch, limits.MaxIDs+1)), codec.FaultTooMany, codec.KindUnbind, "the limit is"},

		{"a negative seq", raw("\x97\x20\xff\xa1a\xa1b\x00\x01\xc4\x00"), codec.FaultBadValue, codec.KindSend, "send.seq at byte 2: a negative"},
		{"an empty to", sendFrame(1, "a", "", "hi", codec.FlagAck, 0), codec.FaultBadValue, codec.KindSend, "send.to"},
		{"a to of 256 bytes", sendFrame(1, "a", longID, "hi", codec.FlagAck, 0), codec.FaultBadValue, codec.KindSend, "256 bytes, the limit is 255"},
		{"a from of 256 bytes", sendFrame(1, longID, "a", "hi", codec.FlagAck, 0), codec.FaultBadValue, codec.KindSend, "send.from"},
		{"an epoch of 2^53", raw("\x94\x10\x01\x00\x91\x92\xa1a\xcf\x00\x20\x00\x00\x00\x00\x00\x00"), codec.FaultBadValue, codec.KindBind, "bind.ids at byte 8"},
		{"policy 2", codec.AppendBind(nil, 1, 2, nil), codec.FaultBadValue, codec.KindBind, "policy"},
		{"a ttl of 2^32", raw("\x97\x20\x01\xa1a\xa1b\xcf\x00\x00\x00\x01\x00\x00\x00\x00\x01\xc4\x00"), codec.FaultBadValue, codec.KindSend, "send.ttl at byte 7"},
		{"an ack that says timeout", codec.AppendAck(nil, &codec.Ack{Token: make([]byte, 8), Code: codec.CodeTimeout}), codec.FaultBadValue, codec.KindAck, "ack.code"},
		{"a token of 49 bytes", codec.AppendAck(nil, &codec.Ack{Token: make([]byte, 49), Code: codec.CodeAcked}), codec.FaultBadValue, codec.KindAck, "ack.token"},
		{"a reply over max_payload", codec.AppendAck(nil, &codec.Ack{Token: make([]byte, 8), Code: codec.CodeAcked, Reply: make([]byte, limits.MaxPayload+1)}),
			codec.FaultBadValue, codec.KindAck, "ack.reply"},
		{"kind 128", raw("\x92\xcc\x80\x01"), codec.FaultBadValue, 0, "kind at byte 1"},
	}
	for _, k := range []codec.Kind{codec.KindHello, codec.KindWelcome, codec.KindError, codec.KindDrain, codec.KindCredit, codec.KindReassert, codec.KindLeft, codec.KindRelogin,
		codec.KindBound, codec.KindUnbound, codec.KindFound, codec.KindKick, codec.KindDeliver, codec.KindOutcome,
		codec.KindWatched, codec.KindChanged} {
		all = append(all, offence{k.String() + " on an open connection", prefixed(0x91, byte(k)), codec.FaultUnexpectedKind, k, k.String()})
	}
	return all
}

// accused checks the error frame for an offence, and that the node counted the fault once.
func (c *client) accused(o offence, before Stats) {
	c.t.Helper()
	e := c.fails(o.fault)
	if e.Kind != o.kind || e.Seq != 0 {
		c.t.Errorf("the error names kind %v and seq %d, want %v and 0", e.Kind, e.Seq, o.kind)
	}
	if !strings.Contains(e.Message, o.says) {
		c.t.Errorf("the message is %q, want %q in it", e.Message, o.says)
	}
	after := c.n.counters()
	for f := range codec.Fault(128) {
		want := before.Faults[f]
		if f == o.fault {
			want++
		}
		if after.Faults[f] != want {
			c.t.Errorf("%d of %v were counted, then %d", before.Faults[f], f, after.Faults[f])
		}
	}
}

func TestBadInput(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		by := n.watchOver()
		for _, o := range offences(n.limits) {
			t.Run(o.name, func(t *testing.T) {
				before := n.counters()
				c := n.join("offender")
				c.t = t
				// The node handles the frame before the bad one, but not the frame behind it.
				c.write(append(append(codec.AppendPing(nil, 7), o.bytes...), codec.AppendPing(nil, 8)...))
				c.expect(codec.KindPong)
				c.accused(o, before)
				by.unharmed()
			})
		}
	})
}

// The node judges input before the welcome more strictly.
func TestBadBeginnings(t *testing.T) {
	hello := func(f codec.Hello) []byte { return codec.AppendHello(nil, &f) }
	good := codec.Hello{MinVersion: 1, MaxVersion: 1}
	var offences = []offence{
		{"send", sendFrame(1, "a", "b", "hi", 0, 0), codec.FaultUnexpectedKind, codec.KindSend, "hello"},
		{"ping", codec.AppendPing(nil, 1), codec.FaultUnexpectedKind, codec.KindPing, "hello"},
		{"bye", codec.AppendBye(nil), codec.FaultUnexpectedKind, codec.KindBye, "hello"},
		{"an unknown kind", raw("\x91\x64"), codec.FaultUnexpectedKind, 100, "hello"},
		{"welcome", raw("\x91\x02"), codec.FaultUnexpectedKind, codec.KindWelcome, "hello"},
		{"a web browser", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), codec.FaultFrameTooLarge, 0, "the limit is 4096"},
		{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), codec.FaultFrameTooLarge, 0, "the limit is 4096"},
		{"hello of 4,097 bytes, announced", []byte{0, 0, 0x10, 1}, codec.FaultFrameTooLarge, 0, "4097"},
		{"zero length", []byte{0, 0, 0, 0}, codec.FaultZeroLength, 0, "length"},
		{"no array", raw("\xa1a"), codec.FaultWrongType, 0, "at byte 0"},
		{"hello too short", raw("\x92\x01\x01"), codec.FaultBadLength, codec.KindHello, "hello"},
		{"credentials are a string", raw("\x99\x01\x01\x01\x00\xa0\xc4\x00\xc4\x00\x00\xa0"), codec.FaultWrongType, codec.KindHello, "hello.credentials"},
		{"a session of 15 bytes", hello(codec.Hello{MinVersion: 1, MaxVersion: 1, Session: make([]byte, 15)}), codec.FaultBadValue, codec.KindHello, "hello.session"},
		{"a secret of 31 bytes", hello(codec.Hello{MinVersion: 1, MaxVersion: 1, Secret: make([]byte, 31)}), codec.FaultBadValue, codec.KindHello, "hello.secret"},
		{"versions 2 to 3", hello(codec.Hello{MinVersion: 2, MaxVersion: 3}), codec.FaultBadVersion, 0, "version 1"},
		{"version 0", hello(codec.Hello{}), codec.FaultBadVersion, 0, "version 1"},
		{"versions 1 to 0", hello(codec.Hello{MinVersion: 1}), codec.FaultBadVersion, 0, "version 1"},
	}
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		by := n.watchOver()
		for _, o := range offences {
			t.Run(o.name, func(t *testing.T) {
				before := n.counters()
				c := n.dial()
				c.t = t
				c.write(append(bytes.Clone(o.bytes), hello(good)...))
				c.accused(o, before)
				by.unharmed()
			})
		}
		t.Run("hello of 4,096 bytes is fine", func(t *testing.T) {
			c := n.dial()
			f := codec.Hello{MinVersion: 0, MaxVersion: 9, Credentials: make([]byte, 1000)}
			f.Credentials = make([]byte, 1000+codec.MaxHelloFrame+codec.PrefixLen-len(hello(f)))
			c.write(hello(f))
			var w codec.Welcome
			c.decoded(codec.DecodeWelcome(c.expect(codec.KindWelcome), &w))
			if w.Version != 1 || w.Features != 0 {
				t.Errorf("version %d, features %d", w.Version, w.Features)
			}
			c.alive()
		})
	})
}

// While the hook checks the credentials, the client may send nothing.
func TestBadJoining(t *testing.T) {
	thinking := make(chan struct{})
	cfg := Config{Loops: 2, Hooks: Hooks{Authenticate: func(_ context.Context, l Login) (Identity, error) {
		if string(l.Credentials) == "slow" {
			<-thinking
		}
		return Identity{}, nil
	}}}
	n := start(t, cfg)
	t.Cleanup(func() { close(thinking) }) // before the engine stops
	by := n.watchOver()
	hello := codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1, Credentials: []byte("slow")})
	for _, o := range []offence{
		{"a second hello", hello, codec.FaultUnexpectedKind, codec.KindHello, "second hello"},
		{"send", sendFrame(1, "a", "b", "hi", 0, 0), codec.FaultUnexpectedKind, codec.KindSend, "before welcome"},
		{"an unknown kind", raw("\x91\x64"), codec.FaultUnexpectedKind, 100, "before welcome"},
		{"a long frame", sendFrame(1, "a", "b", strings.Repeat("x", 5000), 0, 0), codec.FaultFrameTooLarge, 0, "4096"},
	} {
		t.Run(o.name, func(t *testing.T) {
			before := n.counters()
			c := n.dial()
			c.t = t
			c.write(append(bytes.Clone(hello), o.bytes...))
			c.accused(o, before)
			by.unharmed()
		})
	}
}

// A client that keeps sending after its offence still gets the error frame. The node reads on for a
// while and drops the input.
func TestOffenderGoesOn(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		by := n.watchOver()
		for range 5 {
			c := n.join("offender")
			c.write([]byte{0, 0, 0, 0})
			n.settle() // it is closed by now, or what follows does it
			more := sendFrame(1, "offender", "bystander-0", strings.Repeat("x", 1<<16), codec.FlagAck, 0)
			for range 50 {
				c.write(more)
			}
			c.fails(codec.FaultZeroLength)
		}
		by.unharmed()
	})
}

// The node refuses unknown kinds, and nothing else happens (S4).
func TestUnknownKind(t *testing.T) {
	n := start(t, Config{})
	by := n.watchOver()
	c := n.join("a")
	for _, k := range []byte{0, 14, 15, 23, 31, 37, 52, 63, 68, 79, 80, 111, 127} {
		// The node looks neither at the rest, which is not even msgpack, nor at the length that the
		// array claims.
		for _, head := range []string{"\x93", "\xdc\xff\xff", "\xdd\xff\xff\xff\xff"} {
			for _, kind := range []string{string(rune(k)), "\xcc" + string(rune(k)), "\xd1\x00" + string(rune(k)), "\xce\x00\x00\x00" + string(rune(k))} {
				before := n.counters().Faults[codec.FaultUnknownKind]
				c.write(raw(head, kind, "\xc1\xff"))
				e := c.fault(codec.FaultUnknownKind)
				if e.Flags != 0 || e.Kind != codec.Kind(k) || !strings.Contains(e.Message, e.Kind.String()) {
					t.Errorf("kind %d as %x%x: %+v", k, head, kind, e)
				}
				if now := n.counters().Faults[codec.FaultUnknownKind]; now != before+1 {
					t.Errorf("kind %d as %x%x was counted %d times", k, head, kind, now-before)
				}
			}
		}
		c.exchange("a", c, "a")
	}
	by.unharmed()
}

// The node answers each ID of a bad length separately.
func TestBadIDs(t *testing.T) {
	n := start(t, Config{})
	c := n.join()
	ids := []string{"good", "", longID, longID[1:], "fine"}
	want := []codec.Code{codec.CodeOK, codec.CodeBadID, codec.CodeBadID, codec.CodeOK, codec.CodeOK}
	check := func(got []codec.Result) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%d results for %d IDs", len(got), len(want))
		}
		for i, r := range got {
			if r.Code != want[i] || (r.Epoch != 0) != (r.Code == codec.CodeOK) {
				t.Errorf("%.10q: %v", ids[i], r)
			}
		}
	}
	bound := c.tryBind(codec.PolicyKickOld, withEpochs(ids)...)
	check(bound)
	check(c.lookup(ids...))
	if got := n.Stats().IDs; got != 3 {
		t.Errorf("%d IDs are bound, want 3", got)
	}
	list := withEpochs(ids)
	for i := range list {
		list[i].Epoch = bound[i].Epoch
	}
	c.seq++
	c.write(codec.AppendUnbind(nil, c.seq, list))
	for i, r := range c.requested(codec.KindUnbound) {
		if r.Code != want[i] {
			t.Errorf("unbind %.10q: %v", ids[i], r)
		}
	}
	c.alive()
}
