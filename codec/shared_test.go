package codec

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// What one party writes reaches others in frames of a third. Whatever that is, they can read the
// frame: it is cut or left out where it has no room. IDs, tokens and sessions are as they were
// read.
func TestWhatIsAppendedIsAccepted(t *testing.T) {
	texts := []string{"", "n", strings.Repeat("x", MaxID), strings.Repeat("x", MaxID+1), strings.Repeat("ü", MaxID), "\xff\xfe", "a\x00b", strings.Repeat("y", 70_000)}
	numbers := []uint64{0, 1, maxEpoch, maxEpoch + 1, math.MaxUint64}
	id, session, token := []byte("id"), make([]byte, SessionIDLen), make([]byte, MaxToken)
	accepted := func(what string, frame []byte, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: the frame is refused: %v", what, err)
		}
		if body, n, err := Split(frame, MinClientFrame); body == nil || n != len(frame) || err != nil {
			t.Errorf("%s: a frame of %d bytes: %v", what, len(frame), err)
		}
	}
	for _, s := range texts {
		what := fmt.Sprintf("%d bytes", len(s))
		members := []Member{{"before", "a:1"}, {s, "a:2"}, {"n", s}, {s, s}, {"behind", "a:3"}}
		b := AppendMembers(nil, members)
		all, err := DecodeMembers(bodyOf(b))
		accepted("members, "+what, b, err)
		if fits := len(s) <= MaxID; len(all) < 2 || fits != slices.Equal(all, members) || all[len(all)-1] != members[4] {
			t.Errorf("%s: %d nodes are told", what, len(all))
		}
		b = AppendWelcome(nil, &Welcome{Node: s, Session: session, Secret: make([]byte, SecretLen), Members: members})
		accepted("welcome, "+what, b, DecodeWelcome(bodyOf(b), new(Welcome)))
		drain := Drain{Addrs: []string{"a:1", s, "a:2"}}
		b = AppendDrain(nil, &drain)
		accepted("drain, "+what, b, DecodeDrain(bodyOf(b), &drain))
		if len(drain.Addrs) < 2 || drain.Addrs[0] != "a:1" || drain.Addrs[len(drain.Addrs)-1] != "a:2" {
			t.Errorf("%s: addresses %q", what, drain.Addrs)
		}
		for _, fault := range []uint8{1, 127, 128, 255} {
			b = AppendError(nil, &ErrorFrame{Fault: Fault(fault), Kind: Kind(fault), Message: s})
			accepted("error, "+what, b, DecodeError(bodyOf(b), new(ErrorFrame)))
		}
		b = AppendAck(nil, &Ack{Token: token, Code: CodeRejected, Reason: []byte(s)})
		accepted("ack, "+what, b, DecodeAck(bodyOf(b), new(Ack)))
		b = AppendReasons(nil, KindBound, 1, []Result{{}}, []Reason{{Text: []byte(s)}})
		accepted("bound, "+what, b, DecodeResults(bodyOf(b), KindBound, new(Results)))
		hello := PeerHello{Cluster: id, Node: id, Nonce: make([]byte, NonceLen), PeerIdentity: PeerIdentity{Since: 1}}
		for range MaxSettings + 1 {
			hello.Settings = append(hello.Settings, Setting{Name: s, Value: s})
		}
		b = AppendPeerHello(nil, &hello)
		accepted("peer_hello, "+what, b, DecodePeerHello(bodyOf(b), &hello))
		if len(hello.Settings) != MaxSettings {
			t.Errorf("%s: %d settings", what, len(hello.Settings))
		}
		for _, code := range []Code{CodeOK, 127, 128, 255} {
			b = AppendOutcome(nil, &Outcome{Code: code, Reason: []byte(s)})
			accepted("outcome, "+what, b, DecodeOutcome(bodyOf(b), new(Outcome)))
			b = AppendOutcomes(nil, 1, AppendOneOutcome(nil, &Outcome{Code: code, Reason: []byte(s)}))
			_, err = DecodeOutcomes(bodyOf(b))
			accepted("outcomes, "+what, b, err)
			b = AppendAnswer(nil, &Answer{Token: token, Code: code, Session: session, Reason: []byte(s)})
			accepted("answer, "+what, b, DecodeAnswer(bodyOf(b), new(Answer)))
		}
	}
	for _, v := range numbers {
		for kind, b := range numbered(id, session, token, v) {
			_, err := decodeFields(kind, bodyOf(b))
			accepted(fmt.Sprintf("%v, %d", kind, v), b, err)
		}
	}
}

// numbered are frames with an epoch and a code.
func numbered(id, session, token []byte, v uint64) map[Kind][]byte {
	code := Code(v % 256)
	d := Deliver{Token: token, To: id, Epoch: v}
	many := []Recipient{{Token: token, To: id, Epoch: v, Session: session, Why: KindNotMine}}
	return map[Kind][]byte{
		KindBind:        AppendBind(nil, v, PolicyKickOld, []IDEpoch{{id, v}}),
		KindUnbind:      AppendUnbind(nil, v, []IDEpoch{{id, v}}),
		KindClaim:       AppendClaim(nil, session, v, v, []IDEpoch{{id, v}}),
		KindFound:       AppendResults(nil, KindFound, v, []Result{{code, v}}),
		KindKick:        AppendKick(nil, "id", v),
		KindChanged:     AppendChanged(nil, []Change{{id, code, v}}),
		KindDeliver:     AppendDeliver(nil, &d),
		KindNotHere:     AppendNotHere(nil, &d),
		KindDeliverMany: AppendDeliverMany(nil, KindDeliverMany, &DeliverMany{}, many),
		KindForwardMany: AppendDeliverMany(nil, KindForwardMany, &DeliverMany{}, many),
		KindReturnMany:  AppendDeliverMany(nil, KindReturnMany, &DeliverMany{}, many),
		KindForward:     AppendForward(nil, KindForward, &Forward{Deliver: d, Session: session}),
		KindExpel:       AppendExpel(nil, KindExpel, session, "id", v),
		KindRefuse:      AppendRefuse(nil, token, code, nil),
	}
}

// A client passes over the nodes of a list that are wrong, and knows the others.
func TestWrongNodesAreSkipped(t *testing.T) {
	good := func(b []byte, node string) []byte { return appendStr(appendStr(appendArray(b, 2), node), node+":1") }
	wrong := [][]byte{
		appendStr(appendStr(appendArray(nil, 2), "n"), strings.Repeat("x", MaxID+1)),
		appendStr(appendStr(appendArray(nil, 2), strings.Repeat("x", 70_000)), "a:1"),
		appendStr(appendArray(nil, 1), "n"),
		appendArray(nil, 0),
		appendUint(nil, 7),
		{0xc0},
		appendUint(appendStr(appendArray(nil, 2), "n"), 7),
		appendBin(appendStr(appendArray(nil, 2), "n"), []byte("a:1")),
		appendArray(appendArray(appendArray(nil, 1), 1), 0),
	}
	b, start := begin(nil, KindMembers, 2)
	b = good(appendArray(b, len(wrong)+2), "first")
	for _, w := range wrong {
		b = append(b, w...)
	}
	b = end(good(b, "last"), start)
	all, err := DecodeMembers(bodyOf(b))
	if want := []Member{{"first", "first:1"}, {"last", "last:1"}}; err != nil || !slices.Equal(all, want) {
		t.Errorf("%v, %v, want %v", all, err, want)
	}
	deep := slices.Concat([]byte{0x92, 12, 0x91}, slices.Repeat([]byte{0x91}, MaxDepth), []byte{0})
	if _, err := DecodeMembers(deep); asError(t, err, deep).Fault != FaultTooDeep {
		t.Errorf("too deep: %v", err)
	}

	b, start = begin(nil, KindDrain, 4)
	b = appendStr(appendArray(appendUint(appendUint(b, 0), 0), len(wrong)+2), "a:1")
	for _, w := range wrong {
		b = append(b, w...)
	}
	b = end(appendStr(b, "a:2"), start)
	var f Drain
	if err := DecodeDrain(bodyOf(b), &f); err != nil || !slices.Equal(f.Addrs, []string{"a:1", "a:2"}) {
		t.Errorf("%q, %v", f.Addrs, err)
	}
}
