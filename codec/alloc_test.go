package codec

import "testing"

// TestNoAllocations covers the path of every message, and all other kinds but those that keep
// strings: welcome and members (nodes), error (message) and drain (addrs) are rare.
func TestNoAllocations(t *testing.T) {
	buf := make([]byte, 0, 4096)
	id, text, payload := []byte("alice"), []byte("text"), make([]byte, 300)
	wide := make([]byte, 100) // an ID whose length takes a byte of its own
	ids := []IDEpoch{{id, 0}, {wide, 1 << 52}}
	results := []Result{{CodeOK, 1 << 52}, {CodeTaken, 0}}
	plain := [][]byte{id, wide}
	hello := Hello{MinVersion: 1, MaxVersion: 1, Session: payload[:16], Secret: payload[:32], Credentials: text, Agent: text}
	deliver := Deliver{Token: payload[:8], To: id, From: wide, TTL: 5000, Flags: FlagAck, Epoch: 1 << 52, Payload: payload}
	send := Send{Seq: 1 << 40, To: id, From: wide, TTL: 5000, Flags: FlagAck, Payload: payload}
	ack := Ack{Token: payload[:8], Code: CodeAcked, Reason: text, Reply: payload}
	outcome := Outcome{Seq: 1 << 40, Code: CodeAcked, Reason: text, Reply: payload}
	welcome := Welcome{Node: "n", Session: payload[:16], Secret: payload[:32], Members: []Member{{"n", "a"}}}
	errorFrame := ErrorFrame{Fault: FaultBadToken, Message: "text"}
	members := []Member{{"n", "a"}}
	drain := Drain{Addrs: []string{"a"}}
	multicast := Multicast{Seq: 1 << 40, From: wide, TTL: 5000, Flags: FlagAck, Payload: payload}
	many := DeliverMany{From: wide, TTL: 5000, Flags: FlagAck, Payload: payload}
	to := []Recipient{{Token: payload[:8], To: id, Epoch: 1 << 52}, {To: wide}}
	changes := []Change{{id, CodeOK, 1 << 52}, {wide, CodeNoRoute, 1}}
	scratch := make([]byte, 0, 4096)

	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	var sum uint64 // keeps the results alive
	appends := map[Kind]func(b []byte) []byte{
		KindHello:    func(b []byte) []byte { return AppendHello(b, &hello) },
		KindWelcome:  func(b []byte) []byte { return AppendWelcome(b, &welcome) },
		KindPing:     func(b []byte) []byte { return AppendPing(b, 1<<40) },
		KindPong:     func(b []byte) []byte { return AppendPong(b, 1<<40) },
		KindError:    func(b []byte) []byte { return AppendError(b, &errorFrame) },
		KindDrain:    func(b []byte) []byte { return AppendDrain(b, &drain) },
		KindCredit:   func(b []byte) []byte { return AppendCredit(b, 1<<40) },
		KindBye:      AppendBye,
		KindReassert: func(b []byte) []byte { return AppendReassert(b, 300_000) },
		KindLeave:    AppendLeave,
		KindLeft:     AppendLeft,
		KindMembers:  func(b []byte) []byte { return AppendMembers(b, members) },
		KindRelogin:  func(b []byte) []byte { return AppendRelogin(b, 10_000, "expired") },
		KindBind:     func(b []byte) []byte { return AppendBind(b, 1, PolicyKickOld, ids) },
		KindBound:    func(b []byte) []byte { return AppendResults(b, KindBound, 1, results) },
		KindUnbind:   func(b []byte) []byte { return AppendUnbind(b, 1, ids) },
		KindUnbound:  func(b []byte) []byte { return AppendResults(b, KindUnbound, 1, results) },
		KindLookup:   func(b []byte) []byte { return AppendLookup(b, 1, plain) },
		KindFound:    func(b []byte) []byte { return AppendResults(b, KindFound, 1, results) },
		KindKick:     func(b []byte) []byte { return AppendKick(b, "alice", 1<<52) },
		KindSend:     func(b []byte) []byte { return AppendSend(b, &send) },
		KindDeliver:  func(b []byte) []byte { return AppendDeliver(b, &deliver) },
		KindAck:      func(b []byte) []byte { return AppendAck(b, &ack) },
		KindOutcome:  func(b []byte) []byte { return AppendOutcome(b, &outcome) },
		KindNotHere:  func(b []byte) []byte { return AppendNotHere(b, &deliver) },

		KindMulticast:   func(b []byte) []byte { return AppendMulticast(b, &multicast, plain) },
		KindDeliverMany: func(b []byte) []byte { return AppendDeliverMany(b, KindDeliverMany, &many, to) },
		KindNotHereMany: func(b []byte) []byte { return AppendDeliverMany(b, KindNotHereMany, &many, to) },
		KindOutcomes: func(b []byte) []byte {
			return AppendOutcomes(b, 2, AppendOneOutcome(AppendOneOutcome(scratch, &outcome), &outcome))
		},
		KindWatch:   func(b []byte) []byte { return AppendWatch(b, 1, plain) },
		KindWatched: func(b []byte) []byte { return AppendResults(b, KindWatched, 1, results) },
		KindUnwatch: func(b []byte) []byte { return AppendUnwatch(b, plain) },
		KindChanged: func(b []byte) []byte { return AppendChanged(b, changes) },
	}
	decodes := map[Kind]func(body []byte){
		KindHello:    func(body []byte) { check(DecodeHello(body, &hello)) },
		KindPing:     func(body []byte) { n, err := DecodePing(body); check(err); sum += n },
		KindPong:     func(body []byte) { n, err := DecodePong(body); check(err); sum += n },
		KindCredit:   func(body []byte) { n, err := DecodeCredit(body); check(err); sum += n },
		KindBye:      func(body []byte) { check(DecodeBye(body)) },
		KindReassert: func(body []byte) { _, err := DecodeReassert(body); check(err) },
		KindLeave:    func(body []byte) { check(DecodeLeave(body)) },
		KindLeft:     func(body []byte) { check(DecodeLeft(body)) },
		KindRelogin: func(body []byte) {
			n, reason, err := DecodeRelogin(body)
			check(err)
			sum += n + uint64(len(reason))
		},
		KindBind:    func(body []byte) { var f Bind; check(DecodeBind(body, 10, &f)); sum += walkIDs(f.IDs) },
		KindUnbind:  func(body []byte) { var f Unbind; check(DecodeUnbind(body, 10, &f)); sum += walkIDs(f.IDs) },
		KindLookup:  func(body []byte) { var f Lookup; check(DecodeLookup(body, 10, &f)); sum += walkIDs(f.IDs) },
		KindBound:   func(body []byte) { sum += walkResults(t, body, KindBound) },
		KindUnbound: func(body []byte) { sum += walkResults(t, body, KindUnbound) },
		KindFound:   func(body []byte) { sum += walkResults(t, body, KindFound) },
		KindKick:    func(body []byte) { id, n, err := DecodeKick(body); check(err); sum += n + uint64(len(id)) },
		KindSend:    func(body []byte) { check(DecodeSend(body, &send)) },
		KindDeliver: func(body []byte) { check(DecodeDeliver(body, &deliver)); PatchDeliverTTL(body, &deliver, 7) },
		KindAck:     func(body []byte) { check(DecodeAck(body, &ack)) },
		KindOutcome: func(body []byte) { check(DecodeOutcome(body, &outcome)) },
		KindNotHere: func(body []byte) { check(DecodeNotHere(body, &deliver)) },

		KindMulticast: func(body []byte) { check(DecodeMulticast(body, 10, &multicast)); sum += walkIDs(multicast.To) },
		KindDeliverMany: func(body []byte) {
			check(DecodeDeliverMany(body, KindDeliverMany, 10, &many))
			PatchManyTTL(body, &many, 7)
			sum += walkRecipients(many.To)
		},
		KindNotHereMany: func(body []byte) {
			check(DecodeDeliverMany(body, KindNotHereMany, 10, &many))
			sum += walkRecipients(many.To)
		},
		KindOutcomes: func(body []byte) {
			all, err := DecodeOutcomes(body)
			check(err)
			for v, ok := all.Next(); ok; v, ok = all.Next() {
				sum += v.Seq
			}
		},
		KindWatch:   func(body []byte) { var f Watch; check(DecodeWatch(body, 10, &f)); sum += walkIDs(f.IDs) },
		KindWatched: func(body []byte) { sum += walkResults(t, body, KindWatched) },
		KindUnwatch: func(body []byte) { ids, err := DecodeUnwatch(body, 10); check(err); sum += walkIDs(ids) },
		KindChanged: func(body []byte) {
			all, err := DecodeChanged(body)
			check(err)
			for v, ok := all.Next(); ok; v, ok = all.Next() {
				sum += v.Epoch
			}
		},
	}
	for _, l := range clientLayouts {
		encode := appends[l.kind]
		if n := testing.AllocsPerRun(100, func() { sum += uint64(len(encode(buf))) }); n != 0 {
			t.Errorf("Append of %v: %v allocations", l.kind, n)
		}
		// A copy: the structs that are decoded into hold views of it, and are encoded again above.
		frame := append([]byte{}, encode(buf)...)
		decode := decodes[l.kind]
		if n := testing.AllocsPerRun(100, func() {
			body, taken, err := Split(frame, 4096)
			check(err)
			kind, err := PeekKind(body)
			check(err)
			sum += uint64(taken) + uint64(kind)
			if decode != nil {
				decode(body)
			}
		}); n != 0 {
			t.Errorf("Split, PeekKind, Decode of %v: %v allocations", l.kind, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { check(Scan([]byte("\x92\x81\xa1a\x01\xd6\xff\x00\x00\x00\x00"), MaxDepth)) }); n != 0 {
		t.Errorf("Scan: %v allocations", n)
	}
}

func walkIDs(l IDList) (sum uint64) {
	for v, ok := l.Next(); ok; v, ok = l.Next() {
		sum += v.Epoch + uint64(len(v.ID))
	}
	return sum
}

func walkRecipients(l RecipientList) (sum uint64) {
	for v, ok := l.Next(); ok; v, ok = l.Next() {
		sum += v.Epoch + uint64(len(v.Token)+len(v.To)+len(v.Session)) + uint64(v.Why)
	}
	return sum
}

func walkResults(t *testing.T, body []byte, kind Kind) (sum uint64) {
	var f Results
	if err := DecodeResults(body, kind, &f); err != nil {
		t.Error(err)
	}
	for v, ok := f.All.Next(); ok; v, ok = f.All.Next() {
		sum += v.Epoch + uint64(v.Code)
	}
	return sum
}
