package codec

import (
	"bytes"
	"reflect"
	"testing"
)

// What the tests of all kinds need to know of those that only nodes send each other.

var peerLayouts = func() []layout {
	session, proof, nonce := opaque("session", SessionIDLen, SessionIDLen), opaque("proof", SecretLen, SecretLen), opaque("nonce", NonceLen, NonceLen)
	token, node, incarnation := opaque("token", 0, MaxToken), text("node", 1, MaxID), integer("incarnation", maxUint)
	forward := []spec{
		token, text("to", 1, MaxID), text("from", 0, MaxID), integer("ttl", maxTTL),
		integer("flags", 255), integer("epoch", maxEpoch), session, opaque("payload", 0, 70_000),
	}
	presence := []spec{session, integer("serial", maxUint)}
	many := func(recipient ...spec) []spec {
		return []spec{text("from", 0, MaxID), integer("ttl", maxTTL), integer("flags", 255), list("to", testMaxIDs, recipient...), opaque("payload", 0, 70_000)}
	}
	return []layout{
		{KindPeerHello, []spec{integer("min_version", maxUint), integer("max_version", maxUint), text("cluster", 0, MaxID), node, incarnation, nonce}},
		{KindPeerChallenge, []spec{integer("version", maxUint), node, incarnation, nonce, proof}},
		{KindPeerProof, []spec{proof}},
		{KindPeerReady, nil},
		{KindForward, forward},
		{KindAnswer, []spec{token, integer("code", maxCode), session, text("reason", 0, MaxReason), opaque("reply", 0, 70_000)}},
		{KindNotMine, forward},
		{KindRefuse, []spec{token, integer("code", maxCode)}},
		{KindGone, []spec{session}},
		{KindAttached, presence},
		{KindDetached, presence},
		{KindExpel, []spec{session, text("id", 1, MaxID), integer("epoch", maxEpoch)}},
		{KindNotAttached, forward},
		{KindForwardMany, many(token, text("id", 1, MaxID), integer("epoch", maxEpoch), session)},
		{KindReturnMany, many(token, text("id", 1, MaxID), integer("epoch", maxEpoch), session, choice("why", uint64(KindNotMine), uint64(KindNotAttached)))},
		{KindEnded, []spec{session}},
		{KindReleased, []spec{session, text("id", 1, MaxID), integer("epoch", maxEpoch)}},
		{KindClaim, []spec{session, incarnation, integer("serial", maxUint), list("ids", testMaxIDs, text("id", 0, 300), integer("epoch", maxEpoch))}},
		{KindQuery, []spec{integer("number", maxUint), integer("within", maxUint), text("verb", 1, MaxID), opaque("args", 0, 70_000)}},
		{KindQueryPart, []spec{integer("number", maxUint), integer("flags", 255), text("why", 0, MaxReason), opaque("items", 0, 70_000)}},
		{KindAnnounce, []spec{integer("flags", 255), text("addr", 0, MaxID), text("peer_addr", 0, MaxID)}},
	}
}()

// firstPeerKind begins the range of kinds between nodes.
const firstPeerKind = 80

// peerSender says who sends a kind: D dialled, A accepted.
func peerSender(kind Kind) string {
	switch kind {
	case KindPeerHello, KindPeerProof:
		return "D"
	case KindPeerChallenge, KindPeerReady:
		return "A"
	}
	return "both"
}

// peerExamples go on with the story of examples: alice's node n1 forwards her message to bob's, n2.
func peerExamples() map[Kind][]any {
	count := func(from byte, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	n := func(n uint64) uint64 { return n }
	session, token, next := count(0, SessionIDLen), []byte(exampleToken), []byte(nextToken)
	forward := []any{token, "bob", "alice", n(5000), n(1), exampleEpoch + 1, session, []byte("hello")}
	back := append([]any{}, forward...)
	return map[Kind][]any{
		KindPeerHello:     {n(1), n(1), "distmsg", "n1", n(7), count(0xa0, NonceLen)},
		KindPeerChallenge: {n(1), "n2", n(9), count(0xb0, NonceLen), count(0x40, SecretLen)},
		KindPeerProof:     {count(0x60, SecretLen)},
		KindPeerReady:     {},
		KindForward:       forward,
		KindAnswer:        {token, n(1), session, "", []byte("hi")},
		KindNotMine:       back,
		KindRefuse:        {token, n(34)},
		KindGone:          {session},
		KindAttached:      {session, n(3)},
		KindDetached:      {session, n(3)},
		KindExpel:         {session, "alice", exampleEpoch + 9},
		KindNotAttached:   back,
		KindForwardMany: {"alice", n(5000), n(1), []any{
			[]any{token, "bob", exampleEpoch + 1, session}, []any{next, "erin", exampleEpoch + 2, session}}, []byte("hello")},
		KindReturnMany: {"alice", n(4990), n(1), []any{[]any{next, "erin", exampleEpoch + 2, session, uint64(KindNotMine)}}, []byte("hello")},
		KindEnded:      {session},
		KindReleased:   {session, "alice", exampleEpoch},
		KindClaim:      {session, n(9), n(3), []any{[]any{"bob", exampleEpoch + 1}, []any{"erin", exampleEpoch + 2}}},
		KindQuery:      {n(5), n(2000), "believes", []byte(`{"ids":["bob"]}`)},
		KindQueryPart:  {n(5), n(QueryLast), "", []byte(`{"id":"bob"}` + "\n")},
		KindAnnounce:   {n(0), "10.0.0.2:7400", "10.0.0.2:7402"},
	}
}

func decodePeer(kind Kind, body []byte) (v []any, err error) {
	s := func(b []byte) string { return string(b) }
	p := func(b []byte) []byte { return append([]byte{}, b...) }
	var session, proof, id, token []byte
	var serial, epoch uint64
	var code Code
	switch kind {
	case KindPeerHello:
		var f PeerHello
		err = DecodePeerHello(body, &f)
		v = []any{f.MinVersion, f.MaxVersion, s(f.Cluster), s(f.Node), f.Incarnation, p(f.Nonce)}
	case KindPeerChallenge:
		var f PeerChallenge
		err = DecodePeerChallenge(body, &f)
		v = []any{f.Version, s(f.Node), f.Incarnation, p(f.Nonce), p(f.Proof)}
	case KindPeerProof:
		proof, err = DecodePeerProof(body)
		v = []any{p(proof)}
	case KindPeerReady:
		v, err = []any{}, DecodePeerReady(body)
	case KindForward, KindNotMine, KindNotAttached:
		var f Forward
		err = DecodeForward(body, kind, &f)
		v = []any{p(f.Token), s(f.To), s(f.From), uint64(f.TTL), uint64(f.Flags), f.Epoch, p(f.Session), p(f.Payload)}
	case KindAnswer:
		var f Answer
		err = DecodeAnswer(body, &f)
		v = []any{p(f.Token), uint64(f.Code), p(f.Session), s(f.Reason), p(f.Reply)}
	case KindRefuse:
		token, code, _, err = DecodeRefuse(body)
		v = []any{p(token), uint64(code)}
	case KindGone:
		session, err = DecodeGone(body)
		v = []any{p(session)}
	case KindEnded:
		session, err = DecodeEnded(body)
		v = []any{p(session)}
	case KindAttached, KindDetached:
		session, serial, err = DecodePresence(body, kind)
		v = []any{p(session), serial}
	case KindExpel, KindReleased:
		session, id, epoch, err = DecodeExpel(body, kind)
		v = []any{p(session), s(id), epoch}
	case KindQuery:
		var f Query
		err = DecodeQuery(body, &f)
		v = []any{f.Number, f.Within, s(f.Verb), p(f.Args)}
	case KindQueryPart:
		var f QueryPart
		err = DecodeQueryPart(body, &f)
		v = []any{f.Number, uint64(f.Flags), s(f.Why), p(f.Items)}
	default:
		panic("no decoder for " + kind.String())
	}
	return v, err
}

func appendPeer(b []byte, kind Kind, v []any) []byte {
	n := func(i int) uint64 { return v[i].(uint64) }
	s := func(i int) []byte { return []byte(v[i].(string)) }
	p := func(i int) []byte { return v[i].([]byte) }
	switch kind {
	case KindPeerHello:
		return AppendPeerHello(b, &PeerHello{MinVersion: n(0), MaxVersion: n(1), Cluster: s(2), Node: s(3), Incarnation: n(4), Nonce: p(5)})
	case KindPeerChallenge:
		return AppendPeerChallenge(b, &PeerChallenge{Version: n(0), Node: s(1), Incarnation: n(2), Nonce: p(3), Proof: p(4)})
	case KindPeerProof:
		return AppendPeerProof(b, p(0))
	case KindPeerReady:
		return AppendPeerReady(b)
	case KindForward, KindNotMine, KindNotAttached:
		return AppendForward(b, kind, &Forward{Session: p(6), Deliver: Deliver{
			Token: p(0), To: s(1), From: s(2), TTL: uint32(n(3)), Flags: uint8(n(4)), Epoch: n(5), Payload: p(7)}})
	case KindAnswer:
		return AppendAnswer(b, &Answer{Token: p(0), Code: Code(n(1)), Session: p(2), Reason: s(3), Reply: p(4)})
	case KindRefuse:
		return AppendRefuse(b, p(0), Code(n(1)), nil)
	case KindGone:
		return AppendGone(b, p(0))
	case KindEnded:
		return AppendEnded(b, p(0))
	case KindAttached, KindDetached:
		return AppendPresence(b, kind, p(0), n(1))
	case KindExpel, KindReleased:
		return AppendExpel(b, kind, p(0), v[1].(string), n(2))
	case KindQuery:
		return AppendQuery(b, &Query{Number: n(0), Within: n(1), Verb: s(2), Args: p(3)})
	case KindQueryPart:
		return AppendQueryPart(b, &QueryPart{Number: n(0), Flags: uint8(n(1)), Why: s(2), Items: p(3)})
	}
	panic("no encoder for " + kind.String())
}

// TestPeerNoAllocations: a message costs no memory between nodes either, nor does any other frame
// of a link.
func TestPeerNoAllocations(t *testing.T) {
	buf := make([]byte, 0, 4096)
	session, token, payload := make([]byte, SessionIDLen), make([]byte, MaxToken), make([]byte, 300)
	hello := PeerHello{MinVersion: 1, MaxVersion: 1, Cluster: token, Node: token, Incarnation: 1 << 40, Nonce: payload[:NonceLen]}
	challenge := PeerChallenge{Version: 1, Node: token, Nonce: payload[:NonceLen], Proof: payload[:SecretLen]}
	forward := Forward{Session: session, Deliver: Deliver{Token: token, To: token, From: payload[:100], TTL: 5000, Epoch: 1 << 52, Payload: payload}}
	answer := Answer{Token: token, Code: CodeAcked, Session: session, Reason: token, Reply: payload}
	check := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	decodeForward := func(kind Kind) func(body []byte) {
		return func(body []byte) { check(DecodeForward(body, kind, &forward)) }
	}
	decodePresence := func(kind Kind) func(body []byte) {
		return func(body []byte) { _, _, err := DecodePresence(body, kind); check(err) }
	}
	appendForward := func(kind Kind) func(b []byte) []byte {
		return func(b []byte) []byte { return AppendForward(b, kind, &forward) }
	}
	many := DeliverMany{From: payload[:100], TTL: 5000, Payload: payload}
	to := []Recipient{{token, token, 1 << 52, session, KindNotMine}, {nil, payload[:100], 0, session, KindNotAttached}}
	appendMany := func(kind Kind) func(b []byte) []byte {
		return func(b []byte) []byte { return AppendDeliverMany(b, kind, &many, to) }
	}
	decodeMany := func(kind Kind) func(body []byte) {
		return func(body []byte) { check(DecodeDeliverMany(body, kind, 10, &many)); walkRecipients(many.To) }
	}
	appendExpel := func(kind Kind) func(b []byte) []byte {
		return func(b []byte) []byte { return AppendExpel(b, kind, session, "alice", 1<<52) }
	}
	decodeExpel := func(kind Kind) func(body []byte) {
		return func(body []byte) { _, _, _, err := DecodeExpel(body, kind); check(err) }
	}
	appendPresence := func(kind Kind) func(b []byte) []byte {
		return func(b []byte) []byte { return AppendPresence(b, kind, session, 1<<40) }
	}
	claim := Claim{}
	query := Query{Number: 1 << 40, Within: 2000, Verb: token, Args: payload}
	part := QueryPart{Number: 1 << 40, Flags: QueryLast, Why: token, Items: payload}
	announce := Announce{Flags: AnnounceClosed, Addr: payload[:20], PeerAddr: payload[:20]}
	ids := []IDEpoch{{token, 1 << 52}, {payload[:100], 0}}
	frames := map[Kind]struct {
		encode func(b []byte) []byte
		decode func(body []byte)
	}{
		KindPeerHello:     {func(b []byte) []byte { return AppendPeerHello(b, &hello) }, func(body []byte) { check(DecodePeerHello(body, &hello)) }},
		KindPeerChallenge: {func(b []byte) []byte { return AppendPeerChallenge(b, &challenge) }, func(body []byte) { check(DecodePeerChallenge(body, &challenge)) }},
		KindPeerProof:     {func(b []byte) []byte { return AppendPeerProof(b, payload[:SecretLen]) }, func(body []byte) { _, err := DecodePeerProof(body); check(err) }},
		KindPeerReady:     {AppendPeerReady, func(body []byte) { check(DecodePeerReady(body)) }},
		KindForward:       {appendForward(KindForward), decodeForward(KindForward)},
		KindAnswer:        {func(b []byte) []byte { return AppendAnswer(b, &answer) }, func(body []byte) { check(DecodeAnswer(body, &answer)) }},
		KindNotMine:       {appendForward(KindNotMine), decodeForward(KindNotMine)},
		KindRefuse:        {func(b []byte) []byte { return AppendRefuse(b, token, CodeOverflow, nil) }, func(body []byte) { _, _, _, err := DecodeRefuse(body); check(err) }},
		KindGone:          {func(b []byte) []byte { return AppendGone(b, session) }, func(body []byte) { _, err := DecodeGone(body); check(err) }},
		KindAttached:      {appendPresence(KindAttached), decodePresence(KindAttached)},
		KindDetached:      {appendPresence(KindDetached), decodePresence(KindDetached)},
		KindExpel:         {appendExpel(KindExpel), decodeExpel(KindExpel)},
		KindNotAttached:   {appendForward(KindNotAttached), decodeForward(KindNotAttached)},
		KindForwardMany:   {appendMany(KindForwardMany), decodeMany(KindForwardMany)},
		KindReturnMany:    {appendMany(KindReturnMany), decodeMany(KindReturnMany)},
		KindClaim:         {func(b []byte) []byte { return AppendClaim(b, session, 1<<40, 1, ids) }, func(body []byte) { check(DecodeClaim(body, 10, &claim)); walkIDs(claim.IDs) }},
		KindQuery:         {func(b []byte) []byte { return AppendQuery(b, &query) }, func(body []byte) { check(DecodeQuery(body, &query)) }},
		KindQueryPart:     {func(b []byte) []byte { return AppendQueryPart(b, &part) }, func(body []byte) { check(DecodeQueryPart(body, &part)) }},
		KindAnnounce:      {func(b []byte) []byte { return AppendAnnounce(b, &announce) }, func(body []byte) { check(DecodeAnnounce(body, &announce)) }},
		KindEnded:         {func(b []byte) []byte { return AppendEnded(b, session) }, func(body []byte) { _, err := DecodeEnded(body); check(err) }},
		KindReleased:      {appendExpel(KindReleased), decodeExpel(KindReleased)},
	}
	for _, l := range peerLayouts {
		f := frames[l.kind]
		// A copy: the structs that are decoded into hold views of it, and are encoded again above.
		frame := append([]byte{}, f.encode(buf)...)
		body := bodyOf(frame)
		if n := testing.AllocsPerRun(100, func() { f.encode(buf); f.decode(body) }); n != 0 {
			t.Errorf("%v: %v allocations", l.kind, n)
		}
	}
}

// TestPatchForwardTTL: a forward has its TTL where a deliver has it, so that what waits for a link
// is aged in the same way.
func TestPatchForwardTTL(t *testing.T) {
	want := Forward{Session: make([]byte, SessionIDLen), Deliver: Deliver{
		Token: make([]byte, MaxToken), To: []byte("bob"), From: []byte("alice"), TTL: 7, Epoch: maxEpoch, Payload: []byte("payload")}}
	for _, kind := range []Kind{KindForward, KindNotMine, KindNotAttached} {
		want.TTL = 7
		body := bodyOf(AppendForward(nil, kind, &want))
		var f Forward
		if err := DecodeForward(body, kind, &f); err != nil {
			t.Fatal(err)
		}
		PatchDeliverTTL(body, &f.Deliver, 0xfedcba98)
		want.TTL = 0xfedcba98
		if !bytes.Equal(body, bodyOf(AppendForward(nil, kind, &want))) {
			t.Errorf("%v: %x", kind, body)
		}
	}
}

// What was appended to the frames of the handshake comes through, is left out if there is none, and
// is taken for something that a newer version has appended if it is not what it should be.
func TestPeerIdentity(t *testing.T) {
	nonce, proof := make([]byte, NonceLen), make([]byte, SecretLen)
	said := PeerIdentity{Since: 1 << 50, Flags: PeerStarting, Settings: []Setting{{"registry", "ABC"}, {"resume window", "10s"}}}
	for _, want := range []PeerIdentity{{}, {Since: 7}, said} {
		var hello PeerHello
		frame := AppendPeerHello(nil, &PeerHello{MinVersion: 1, MaxVersion: 1, Node: []byte("n"), Nonce: nonce, PeerIdentity: want})
		if err := DecodePeerHello(frame[PrefixLen:], &hello); err != nil || !reflect.DeepEqual(hello.PeerIdentity, want) {
			t.Errorf("hello: %+v, %v; want %+v", hello.PeerIdentity, err, want)
		}
		var challenge PeerChallenge
		frame = AppendPeerChallenge(nil, &PeerChallenge{Version: 1, Node: []byte("n"), Nonce: nonce, Proof: proof, PeerIdentity: want})
		if err := DecodePeerChallenge(frame[PrefixLen:], &challenge); err != nil || !reflect.DeepEqual(challenge.PeerIdentity, want) {
			t.Errorf("challenge: %+v, %v; want %+v", challenge.PeerIdentity, err, want)
		}
	}
	b, start := begin(nil, KindPeerHello, 10)
	b = appendUint(appendUint(b, 1), 1)
	b = appendBin(appendUint(appendStr(appendStr(b, ""), "n"), 7), nonce)
	b = appendStr(appendUint(appendUint(b, 8), 0), "no list")
	hello := PeerHello{PeerIdentity: said}
	if err := DecodePeerHello(end(b, start)[PrefixLen:], &hello); err != nil || hello.Since != 0 || hello.Settings != nil {
		t.Errorf("%+v, %v", hello.PeerIdentity, err)
	}
}
