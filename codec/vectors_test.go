package codec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docs/protocol/vectors.json is made here, with go test ./codec -run Vectors -update, and checked
// here and by docs/protocol/check-vectors, which does not know this package.

var update = flag.Bool("update", false, "write docs/protocol/vectors.json and the examples of the protocol documents")

const vectorsFile = "../docs/protocol/vectors.json"

// The limits that the vectors are decided by.
const (
	vectorMaxFrame = 1 << 16
	vectorMaxIDs   = 4 // in a multicast as well
)

type vectors struct {
	About      string            `json:"about"`
	Legend     map[string]string `json:"legend"` // written in the order of legend
	Version    int               `json:"version"`
	MaxFrame   int               `json:"max_frame"`
	MaxIDs     int               `json:"max_ids"`
	MaxMany    int               `json:"max_multicast"`
	Good       []goodVector      `json:"good"`
	Bad        []badVector       `json:"bad"`
	Incomplete []incomplete      `json:"incomplete"`
}

// goodVector is a frame and what it says. Fields are [name, type, value]: int as a number, or as a decimal
// string from 2^53 on; str as a string; bin as hex; list as an array of such values.
type goodVector struct {
	Name      string   `json:"name"`
	Kind      uint8    `json:"kind"`
	KindName  string   `json:"kind_name"`
	From      string   `json:"from"`      // C, N or both
	Canonical bool     `json:"canonical"` // the shortest encoding without extensions (the ttl of deliver, not_here and the frames of many: always 5 bytes)
	Hex       string   `json:"hex"`
	Fields    [][3]any `json:"fields"`
}

// badVector is what must be refused: a frame, or as much of one as is needed to see that.
type badVector struct {
	Name   string `json:"name"`
	Reader string `json:"reader"` // who refuses it: N, C or both, on an open connection
	Hex    string `json:"hex"`
	Fault  string `json:"fault"`
	Closed bool   `json:"closed"`
	Kind   string `json:"kind"`   // "" when it was not known yet
	Field  string `json:"field"`  // "" when the frame as a whole is wrong
	Offset int    `json:"offset"` // where the value at fault begins, in bytes after the length prefix
}

// incomplete is the beginning of a frame: not a fault, the rest is still to come.
type incomplete struct {
	Name string `json:"name"`
	Hex  string `json:"hex"`
}

const aboutVectors = "Frames with their length prefix, in hex, and what they mean; see docs/protocol.md. " +
	"Generated and checked by codec/vectors_test.go, checked once more by docs/protocol/check-vectors."

// legend says what the fields of the vectors mean, in the order in which they are written.
var legend = [][2]string{
	{"max_frame, max_ids, max_multicast", "the limits that the node has announced. A client reads frames of up to max_frame or 1 MiB, whichever is more"},
	{"good", "whole frames that must be read, by whoever may be sent them"},
	{"good.from", "who sends this kind: C, the client; N, the node; both"},
	{"good.canonical", "true: an encoder that takes the shortest form makes these bytes (the ttl of deliver, not_here, deliver_many and not_here_many " +
		"always takes 5). false: another encoding, or with extensions; read it, and encode as you like"},
	{"good.fields", "[name, type, value] of each field behind the kind. int: a number, or its decimal digits in a string from 2^53 on; " +
		"str: a string; bin: hex; list: an array of such values. Extensions are left out"},
	{"bad", "what must be refused, or for unknown_kind skipped: a frame, or as much of it as shows the fault"},
	{"bad.reader", "who refuses it, on an open connection: N, a node that a client sends it to; C, a client that a node sends it to; both"},
	{"bad.fault", "why, in the words of the table of faults. A node says so in its error frame. A client sends nothing and closes the connection; a kind that it does not know it skips"},
	{"bad.closed", "true: the connection is closed"},
	{"bad.kind", "the frame's kind, empty if it cannot be read"},
	{"bad.field, bad.offset", "for people: the value at fault and where it begins, in bytes behind the length prefix, as the Go decoder of this project sees it. Other decoders may find another fault of the same name first"},
	{"incomplete", "beginnings of frames: no fault, wait for more"},
}

// sender says who sends a kind.
func sender(kind Kind) string {
	switch {
	case kind == KindPing, kind == KindPong:
		return "both"
	case kind.FromClient():
		return "C"
	}
	return "N"
}

const (
	exampleEpoch = uint64(1_767_225_600_000_000)
	exampleToken = "\x01\x90\x00\x00\x40\x00\x00\x01"
	nextToken    = "\x01\x90\x00\x00\x40\x00\x00\x02"
)

// examples is one frame of every kind, in the order of the kinds: the examples of the protocol documents. They tell a story.
func examples() map[Kind][]any {
	session, secret := make([]byte, SessionIDLen), make([]byte, SecretLen)
	for i := range session {
		session[i] = byte(i)
	}
	for i := range secret {
		secret[i] = byte(0x20 + i)
	}
	limits := []any{}
	for _, n := range []uint64{1 << 20, 1<<20 + 1024, 1024, 65536, 4 << 20, 300_000, 5_000, 10_000, 30_000, 10_000, 10_000, 100_000} {
		limits = append(limits, n)
	}
	n := func(n uint64) uint64 { return n }
	none := []byte{}
	bob, erin := []any{[]byte(exampleToken), "bob", exampleEpoch + 1}, []any{[]byte(nextToken), "erin", exampleEpoch + 2}
	all := map[Kind][]any{
		KindHello:    {n(1), n(1), n(0), none, none, none, n(0), "example/1", n(1000)},
		KindWelcome:  {n(1), n(0), "n1", n(7), session, secret, n(0), limits, []any{[]any{"n1", "127.0.0.1:7400"}}},
		KindPing:     {n(42)},
		KindPong:     {n(42)},
		KindError:    {n(16), n(0), n(34), n(0), "unknown token"},
		KindDrain:    {n(2000), n(10_000), []any{"127.0.0.2:7400"}},
		KindCredit:   {n(6_291_464)},
		KindBye:      {},
		KindReassert: {n(0)},
		KindLeave:    {},
		KindLeft:     {},
		KindMembers:  {[]any{[]any{"n1", "127.0.0.1:7400"}, []any{"n2", "127.0.0.2:7400"}}},
		KindBind:     {n(1), n(0), []any{[]any{"alice", n(0)}, []any{"carol", exampleEpoch}}},
		KindBound:    {n(1), []any{[]any{n(0), exampleEpoch + 5}, []any{n(67), exampleEpoch + 3}}},
		KindUnbind:   {n(2), []any{[]any{"alice", exampleEpoch + 5}}},
		KindUnbound:  {n(2), []any{[]any{n(0), n(0)}}},
		KindLookup:   {n(3), []any{"bob", "dave"}},
		KindFound:    {n(3), []any{[]any{n(0), exampleEpoch + 1}, []any{n(32), n(0)}}},
		KindKick:     {"alice", exampleEpoch + 9},
		KindSend:     {n(7), "bob", "alice", n(5000), n(1), []byte("hello")},
		KindDeliver:  {[]byte(exampleToken), "bob", "alice", n(5000), n(1), exampleEpoch + 1, []byte("hello")},
		KindAck:      {[]byte(exampleToken), n(1), "", []byte("hi")},
		KindOutcome:  {n(7), n(1), "", []byte("hi")},
		KindNotHere:  {[]byte(exampleToken), "bob", "alice", n(4990), n(1), exampleEpoch + 1, []byte("hello")},

		KindMulticast:   {n(8), "alice", n(5000), n(1), []any{"bob", "erin", "dave"}, []byte("hello")},
		KindDeliverMany: {"alice", n(5000), n(1), []any{bob, erin}, []byte("hello")},
		KindNotHereMany: {"alice", n(4990), n(1), []any{erin}, []byte("hello")},
		KindOutcomes:    {[]any{[]any{n(8), n(1), "", []byte("hi")}, []any{n(9), n(32), "", none}, []any{n(10), n(32), "", none}}},

		KindWatch:   {n(4), []any{"bob", "dave"}},
		KindWatched: {n(4), []any{[]any{n(0), exampleEpoch + 1}, []any{n(32), n(0)}}},
		KindUnwatch: {[]any{"dave"}},
		KindChanged: {[]any{[]any{"bob", n(32), exampleEpoch + 1}, []any{"dave", n(0), exampleEpoch + 8}}},
	}
	maps.Copy(all, peerExamples())
	return all
}

func makeVectors(t *testing.T) vectors {
	v := vectors{About: aboutVectors, Legend: map[string]string{}, Version: Version, MaxFrame: vectorMaxFrame, MaxIDs: vectorMaxIDs, MaxMany: vectorMaxIDs}
	for _, l := range legend {
		v.Legend[l[0]] = l[1]
	}
	good := func(name string, frame []byte) {
		kind, err := PeekKind(bodyOf(frame))
		if err != nil {
			t.Fatal(name, err)
		}
		values, err := decodeLimited(kind, bodyOf(frame), vectorMaxIDs)
		if err != nil {
			t.Fatal(name, err)
		}
		fields := [][3]any{}
		for i, f := range layoutOf(kind).fields {
			fields = append(fields, [3]any{f.name, f.typ, jsonValue(values[i])})
		}
		v.Good = append(v.Good, goodVector{name, uint8(kind), kind.String(), sender(kind),
			slices.Equal(appendFields(nil, kind, values), frame), hex.EncodeToString(frame), fields})
	}
	for _, l := range clientLayouts {
		good("example "+l.kind.String(), appendFields(nil, l.kind, examples()[l.kind]))
	}
	for _, l := range clientLayouts {
		good("extensions after "+l.kind.String(), raw(extended(extended(bodyOf(appendFields(nil, l.kind, examples()[l.kind])),
			len(l.fields)+1, 0x82, 0xa1, 'k', 0x92, 0xc0, 0xc3, 0xa1, 'f', 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0),
			len(l.fields)+2, 0xd5, 0x07, 1, 2)...))
	}
	for _, g := range moreGood() {
		good(g.name, g.frame)
	}
	for _, b := range badFrames() {
		v.Bad = append(v.Bad, judge(t, b.name, b.frame))
		if got := v.Bad[len(v.Bad)-1].Fault; got != b.fault.String() {
			t.Errorf("%s: %s, want %v", b.name, got, b.fault)
		}
	}
	ping := AppendPing(nil, 300)
	v.Incomplete = []incomplete{
		{"nothing", ""},
		{"part of the prefix", hex.EncodeToString(ping[:3])},
		{"the prefix alone", hex.EncodeToString(ping[:4])},
		{"all but the last byte", hex.EncodeToString(ping[:len(ping)-1])},
	}
	return v
}

// judge is what a node makes of bytes that a client sent on an open connection, or a client of a
// node's. Where both say the same, the vector is for both; the bytes of a kind that only one of
// them reads are for that one.
func judge(t *testing.T, name string, frame []byte) badVector {
	byNode, byClient := judgeAs(t, "N", name, frame), judgeAs(t, "C", name, frame)
	unexpected := FaultUnexpectedKind.String()
	switch {
	case byNode.Fault == byClient.Fault && byNode.Kind == byClient.Kind:
		byNode.Reader = "both"
	case byNode.Fault == "", byClient.Fault != "" && byNode.Fault == unexpected:
		return byClient
	}
	return byNode
}

// judgeAs is judge for one reader. The fault is empty if there is none.
func judgeAs(t *testing.T, reader, name string, frame []byte) badVector {
	v := badVector{Name: name, Reader: reader, Hex: hex.EncodeToString(frame), Closed: true}
	refuse := func(err error, kind Kind) badVector {
		var e *Error
		if !errors.As(err, &e) {
			return v
		}
		v.Fault, v.Field, v.Offset = e.Fault.String(), e.Field, e.Offset
		if kind != 0 {
			v.Kind = kind.String()
		}
		return v
	}
	limit := vectorMaxFrame
	if reader == "C" {
		limit = max(limit, MinClientFrame)
	}
	body, n, err := Split(frame, limit)
	if err != nil {
		return refuse(err, 0)
	}
	switch {
	case n == 0 && reader == "C":
		return v // within its limit
	case n != len(frame):
		t.Fatalf("%s: not one whole frame", name)
	}
	kind, err := PeekKind(body)
	if err != nil {
		return refuse(err, 0)
	}
	head := 1 // bytes of the array's header
	if body[0] == 0xdc || body[0] == 0xdd {
		head = 1 + 2<<(body[0]-0xdc)
	}
	from := sender(kind)
	switch {
	case strings.HasPrefix(kind.String(), "kind_"):
		v.Closed = false
		return refuse(&Error{Fault: FaultUnknownKind, Field: "kind", Offset: head}, kind)
	case kind == KindHello, kind == KindWelcome, from != "both" && from == reader:
		return refuse(&Error{Fault: FaultUnexpectedKind, Field: "kind", Offset: head}, kind)
	}
	_, err = decodeLimited(kind, body, vectorMaxIDs)
	return refuse(err, kind)
}

type namedFrame struct {
	name  string
	frame []byte
	fault Fault
}

// moreGood has the limits, and every encoding that is not the shortest.
func moreGood() []namedFrame {
	id := func(n int) string { return strings.Repeat("abcdefghij", 26)[:n] }
	send := func(to string, payload int) []byte {
		return appendFields(nil, KindSend, []any{uint64(1), to, "a", uint64(0), uint64(0), make([]byte, payload)})
	}
	ids := func(ids ...string) []byte {
		list := []any{}
		for _, id := range ids {
			list = append(list, []any{id, uint64(0)})
		}
		return appendFields(nil, KindBind, []any{uint64(1), uint64(1), list})
	}
	var v []namedFrame
	add := func(name string, frame []byte) { v = append(v, namedFrame{name: name, frame: frame}) }
	for _, n := range []int{1, 31, 32, 255} {
		add(fmt.Sprintf("an ID of %d bytes", n), send(id(n), 0))
	}
	add("an ID of three characters in nine bytes", send("日本語", 0))
	add("a payload of 255 bytes: bin 8", send("b", 255))
	add("a payload of 256 bytes: bin 16", send("b", 256))
	for _, n := range []uint64{0, 127, 128, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, maxEpoch, maxEpoch + 1, math.MaxUint64} {
		add("a ping with nonce "+strconv.FormatUint(n, 10), AppendPing(nil, n))
	}
	add("the greatest epoch", AppendKick(nil, "a", maxEpoch))
	add("no IDs", ids())
	add("as many IDs as allowed", ids("a", "b", "c", "d"))
	add("an empty ID in a bind: answered bad_id, no fault", ids("", "b"))
	add("an ID of 256 bytes in a bind: answered bad_id, no fault", ids(id(256)))
	add("the same ID twice", ids("a", "a"))
	add("a send from nobody", AppendSend(nil, &Send{Seq: 1, To: []byte("b")}))
	add("a send with all flags and the longest ttl", AppendSend(nil, &Send{Seq: math.MaxUint64, To: []byte("b"), From: []byte("a"), TTL: math.MaxUint32, Flags: 255}))
	add("a deliver without token", AppendDeliver(nil, &Deliver{To: []byte("b"), From: []byte("a"), Epoch: 1}))
	add("a not_here without content", AppendNotHere(nil, &Deliver{Token: []byte(exampleToken), To: []byte("bob"), Epoch: exampleEpoch + 1}))
	add("a not_here_many without content", AppendDeliverMany(nil, KindNotHereMany, &DeliverMany{}, []Recipient{
		{Token: []byte(nextToken), To: []byte("erin"), Epoch: exampleEpoch + 2}}))
	add("a token of 48 bytes", AppendAck(nil, &Ack{Token: make([]byte, MaxToken), Code: CodeAcked}))
	add("an ack that rejects", AppendAck(nil, &Ack{Token: []byte{1}, Code: CodeRejected, Reason: []byte("full"), Reply: []byte{2}}))
	add("an outcome with a code of the future", AppendOutcome(nil, &Outcome{Seq: 1, Code: 95}))
	add("an error with a fault of the future", AppendError(nil, &ErrorFrame{Fault: 127, Flags: ErrorClosing, Kind: 127, Seq: math.MaxUint64}))
	add("no nodes", AppendMembers(nil, nil))
	add("a node that takes no clients: no address", AppendMembers(nil, []Member{{Node: "n1"}}))
	add("an extension in a pair of members", raw(0x92, 12, 0x91, 0x93, 0xa1, 'n', 0xa1, 'a', 0xc0))
	add("a drain to nowhere", AppendDrain(nil, &Drain{}))
	add("a hello that resumes", AppendHello(nil, &Hello{MinVersion: 1, MaxVersion: 3, Features: 1 << 63, Credentials: []byte("user:pass"),
		Session: make([]byte, SessionIDLen), Secret: make([]byte, SecretLen), Flags: HelloReplace, Agent: []byte("example/1")}))

	add("a multicast to nobody", AppendMulticast[string](nil, &Multicast{Seq: 1, From: []byte("a")}, nil))
	add("a multicast to as many IDs as allowed, one of them twice", AppendMulticast(nil, &Multicast{
		Seq: math.MaxUint64 - 3, From: []byte("a"), TTL: math.MaxUint32, Flags: 255, Payload: []byte{1}}, []string{"a", "b", id(255), "b"}))
	add("a deliver_many without tokens", AppendDeliverMany(nil, KindDeliverMany, &DeliverMany{From: []byte("a"), Payload: []byte{1}}, []Recipient{
		{To: []byte("b"), Epoch: 1}, {To: []byte(id(255)), Epoch: maxEpoch}}))
	add("a not_here_many with tokens of 44 and 48 bytes", AppendDeliverMany(nil, KindNotHereMany, &DeliverMany{From: []byte("a"), TTL: 1, Flags: FlagReport}, []Recipient{
		{Token: make([]byte, 44), To: []byte("b"), Epoch: 1}, {Token: make([]byte, MaxToken), To: []byte("c"), Epoch: 2}}))
	add("outcomes that reject, and with a code of the future", AppendOutcomes(nil, 2, AppendOneOutcome(
		AppendOneOutcome(nil, &Outcome{Seq: math.MaxUint64, Code: CodeRejected, Reason: []byte("full"), Reply: []byte{2}}), &Outcome{Code: 95})))
	add("no outcomes", AppendOutcomes(nil, 0, nil))
	add("an empty ID in a watch, and one of 256 bytes: answered bad_id, no fault", AppendWatch(nil, 1, [][]byte{{}, []byte(id(256))}))
	add("bound with a reason", AppendReasons(nil, KindBound, 1, []Result{{CodeOK, 5}, {Code: CodeDenied}}, []Reason{{Index: 1, Text: []byte("not yours")}}))
	add("watched with a reason", AppendReasons(nil, KindWatched, 1, []Result{{Code: CodeNoRoute}, {Code: CodeOverflow}}, []Reason{{Index: 1, Text: []byte("too many")}}))
	add("watched but not known, and not watched", AppendResults(nil, KindWatched, 1, []Result{{Code: CodeRegistryUnavailable}, {Code: CodeOverflow}}))
	add("unwatch nothing", AppendUnwatch(nil, nil))
	add("an ID that comes and goes in one frame", AppendChanged(nil, []Change{{[]byte("a"), CodeOK, 5}, {[]byte("a"), CodeNoRoute, 5}}))
	welcome := func(limits int) []byte {
		body := slices.Concat([]byte{0x9a, 2, 1, 0, 0xa1, 'n', 1, 0xc4, SessionIDLen}, make([]byte, SessionIDLen), []byte{0xc4, SecretLen},
			make([]byte, SecretLen), []byte{0, 0x90 | byte(limits)}, bytes.Repeat([]byte{7}, limits), []byte{0x90})
		return raw(body...)
	}
	add("a welcome with ten limits: the others are 0", welcome(10))
	add("a welcome with a limit of the future", welcome(13))

	// Wide encodings of [32, 1, "b", "a", 0, 0, bin ""], one field after the other.
	wide := func(name string, parts ...string) {
		var body []byte
		for _, p := range parts {
			b, err := hex.DecodeString(strings.ReplaceAll(p, " ", ""))
			if err != nil {
				panic(err)
			}
			body = append(body, b...)
		}
		add(name, raw(body...))
	}
	const array, kind, seq, to, from, ttl, flags, payload = "97", "20", "01", "a162", "a161", "00", "00", "c400"
	wide("array 16", "dc0007", kind, seq, to, from, ttl, flags, payload)
	wide("array 32", "dd00000007", kind, seq, to, from, ttl, flags, payload)
	wide("the kind as uint 8", array, "cc20", seq, to, from, ttl, flags, payload)
	wide("the kind as int 16", array, "d10020", seq, to, from, ttl, flags, payload)
	for _, i := range []struct{ name, hex string }{
		{"uint 8", "cc01"}, {"uint 16", "cd0001"}, {"uint 32", "ce00000001"}, {"uint 64", "cf0000000000000001"},
		{"int 8", "d001"}, {"int 16", "d10001"}, {"int 32", "d200000001"}, {"int 64", "d30000000000000001"},
	} {
		wide("seq as "+i.name, array, kind, i.hex, to, from, ttl, flags, payload)
		wide("flags as "+i.name, array, kind, seq, to, from, ttl, i.hex, payload)
	}
	wide("ttl as uint 64", array, kind, seq, to, from, "cf00000000ffffffff", flags, payload)
	wide("to as str 8", array, kind, seq, "d90162", from, ttl, flags, payload)
	wide("to as str 16", array, kind, seq, "da000162", from, ttl, flags, payload)
	wide("to as str 32", array, kind, seq, "db0000000162", from, ttl, flags, payload)
	wide("payload as bin 16", array, kind, seq, to, from, ttl, flags, "c50001ff")
	wide("payload as bin 32", array, kind, seq, to, from, ttl, flags, "c600000001ff")
	wide("an extension in a pair of bind", "94", "10", "01", "00", "91", "93 a161 00 c0")
	wide("an extension in a recipient of deliver_many", "96", "31", from, ttl, flags, "91", "94 c400 a162 00 c0", payload)
	wide("an extension in an outcome of outcomes", "92", "33", "91", "95 01 01 a0 c400 c0")
	wide("an extension in a change", "92", "43", "91", "94 a162 00 01 c0")
	wide("the list of a multicast as array 32, its IDs as str 8 to 32", "97", "30", seq, from, ttl, flags, "dd00000003 d90162 da000162 db0000000162", payload)
	wide("an extension 16 arrays deep", "92", "08", strings.Repeat("91", 14)+"90")
	return v
}

// badFrames has every fault that can be seen in the bytes of one frame.
func badFrames() []namedFrame {
	var v []namedFrame
	add := func(fault Fault, name string, frame ...byte) { v = append(v, namedFrame{name, frame, fault}) }
	body := func(fault Fault, name, parts string) {
		b, err := hex.DecodeString(strings.ReplaceAll(parts, " ", ""))
		if err != nil {
			panic(name)
		}
		add(fault, name, raw(b...)...)
	}
	add(FaultZeroLength, "a length of zero", 0, 0, 0, 0)
	add(FaultFrameTooLarge, "one byte over max_frame", 0, 1, 0, 1)
	add(FaultFrameTooLarge, "a length of 4 GiB", 0xff, 0xff, 0xff, 0xff)

	body(FaultWrongType, "no array but an integer", "05")
	body(FaultWrongType, "no array but a map", "81 03 01")
	body(FaultWrongType, "JSON", hex.EncodeToString([]byte(`{"kind":3}`)))
	body(FaultWrongType, "HTTP: its length would be too large, this is what follows", hex.EncodeToString([]byte("GET / HTTP/1.1\r\n\r\n")))
	body(FaultBadLength, "an empty array", "90")
	body(FaultBadLength, "array 16, cut short", "dc00")
	body(FaultTooMany, "an array of 10 million in five bytes", "dd 00 98 96 80")
	body(FaultTooMany, "an array of 15 in three bytes", "9f 20 01")
	body(FaultWrongType, "the kind is a str", "92 a1 33 01")
	body(FaultWrongType, "the kind is nil", "92 c0 01")
	body(FaultBadValue, "kind 128", "92 cc 80 01")
	body(FaultBadValue, "a negative kind", "92 ff 01")

	body(FaultUnknownKind, "kind 0", "92 00 01")
	body(FaultUnknownKind, "a free kind of the multicast range", "92 34 01")
	body(FaultUnknownKind, "a kind of nodes' range that is free", "92 62 01")
	body(FaultUnknownKind, "kind 127, with anything behind it", "93 7f c1 ff")
	body(FaultUnknownKind, "kind 127 in a fixarray of 15 that ends at once", "9f 7f")
	body(FaultUnknownKind, "kind 127 in an array 16 of 65,535 that ends at once", "dc ffff 7f")
	body(FaultUnknownKind, "kind 127 in an array 32 of 4 billion that ends at once", "dd ffffffff 7f")
	body(FaultUnknownKind, "kind 127 as uint 64, with anything behind it", "dc 0003 cf000000000000007f c1 ff")
	body(FaultTooMany, "an array of 4 billion that holds a ping", "dd ffffffff 03 01")
	body(FaultUnexpectedKind, "an array of 4 billion that holds a hello", "dd ffffffff 01 01")
	body(FaultUnexpectedKind, "hello on an open connection", hex.EncodeToString(bodyOf(appendFields(nil, KindHello, examples()[KindHello]))))
	for _, l := range clientLayouts {
		if sender(l.kind) == "N" {
			body(FaultUnexpectedKind, "a client sends "+l.kind.String(), hex.EncodeToString(bodyOf(appendFields(nil, l.kind, examples()[l.kind]))))
		}
	}

	for _, l := range clientLayouts {
		if sender(l.kind) == "C" && l.kind != KindHello {
			body(FaultUnexpectedKind, "a node sends "+l.kind.String(), hex.EncodeToString(bodyOf(appendFields(nil, l.kind, examples()[l.kind]))))
		}
	}

	body(FaultBadLength, "a send with a field too few", "96 20 01 a162 a161 00 00")
	body(FaultBadLength, "a send whose payload is cut short", "97 20 01 a162 a161 00 00 c405 0102")
	body(FaultBadLength, "a send whose payload declares 2 GiB", "97 20 01 a162 a161 00 00 c6 80000000 01")
	body(FaultBadLength, "a send whose to is cut short", "97 20 01 bf 62 a161 00 00 c400")
	body(FaultBadLength, "a byte after the array", "97 20 01 a162 a161 00 00 c400 00")
	body(FaultBadLength, "a second frame inside the first", "92 03 01 92 03 01")
	body(FaultWrongType, "seq is a float", "97 20 cb3ff0000000000000 a162 a161 00 00 c400")
	body(FaultBadValue, "seq is negative: fixint", "97 20 ff a162 a161 00 00 c400")
	body(FaultBadValue, "seq is negative: int 8", "97 20 d0ff a162 a161 00 00 c400")
	body(FaultBadValue, "seq is negative: int 64", "97 20 d3ffffffffffffffff a162 a161 00 00 c400")
	body(FaultWrongType, "to is bin", "97 20 01 c40162 a161 00 00 c400")
	body(FaultWrongType, "from is nil", "97 20 01 a162 c0 00 00 c400")
	body(FaultWrongType, "payload is str", "97 20 01 a162 a161 00 00 a0")
	body(FaultWrongType, "payload is nil", "97 20 01 a162 a161 00 00 c0")
	body(FaultWrongType, "payload is an extension", "97 20 01 a162 a161 00 00 d4 07 01")
	body(FaultBadValue, "to is empty", "97 20 01 a0 a161 00 00 c400")
	body(FaultBadValue, "to has 256 bytes", "97 20 01 da0100"+strings.Repeat("62", 256)+"a161 00 00 c400")
	body(FaultBadValue, "from has 256 bytes", "97 20 01 a162 da0100"+strings.Repeat("61", 256)+"00 00 c400")
	body(FaultBadValue, "ttl is over 32 bits", "97 20 01 a162 a161 cf0000000100000000 00 c400")
	body(FaultBadValue, "flags are over 8 bits", "97 20 01 a162 a161 00 cd0100 c400")

	body(FaultBadValue, "an ack with code ok", "95 22 c40101 00 a0 c400")
	body(FaultBadValue, "an ack with code timeout", "95 22 c40101 50 a0 c400")
	body(FaultBadValue, "a token of 49 bytes", "95 22 c431"+strings.Repeat("01", 49)+"01 a0 c400")
	body(FaultBadValue, "a reason of 256 bytes", "95 22 c40101 10 da0100"+strings.Repeat("61", 256)+"c400")
	body(FaultBadValue, "a not_here with an epoch of 2^53", "98 24 c40101 a162 a161 00 01 cf0020000000000000 c400")

	body(FaultTooMany, "more IDs than max_ids", "94 10 01 00 95 92a16100 92a16200 92a16300 92a16400 92a16500")
	body(FaultTooMany, "4 billion IDs declared", "94 10 01 00 dd ffffffff 92a16100")
	body(FaultBadValue, "an unknown policy", "94 10 01 02 91 92a16100")
	body(FaultBadLength, "an ID without epoch in a bind", "94 10 01 00 91 91a161")
	body(FaultWrongType, "plain IDs in a bind", "94 10 01 00 91 a161")
	body(FaultWrongType, "pairs in a lookup", "93 14 01 91 92a16100")
	body(FaultWrongType, "an ID that is bin in a lookup", "93 14 01 91 c40161")
	body(FaultTooMany, "more nodes than welcome and members may name", "92 0c dc 0401"+strings.Repeat("92a0a0", MaxMembers+1))
	body(FaultBadValue, "an epoch of 2^53 in a bind", "94 10 01 00 91 92a161cf0020000000000000")
	body(FaultWrongType, "an epoch that is str in an unbind", "93 12 01 91 92a161a130")

	body(FaultTooMany, "more IDs than max_multicast", "97 30 01 a161 00 00 95 a162 a162 a162 a162 a162 c400")
	body(FaultTooMany, "a multicast to 4 billion IDs", "97 30 01 a161 00 00 dd ffffffff a162 c400")
	body(FaultBadValue, "an empty ID in a multicast", "97 30 01 a161 00 00 92 a162 a0 c400")
	body(FaultBadValue, "an ID of 256 bytes in a multicast", "97 30 01 a161 00 00 91 da0100"+strings.Repeat("62", 256)+"c400")
	body(FaultWrongType, "pairs in a multicast", "97 30 01 a161 00 00 91 92a16200 c400")
	body(FaultWrongType, "one ID without a list in a multicast", "97 30 01 a161 00 00 a162 c400")
	body(FaultBadLength, "a multicast without payload", "96 30 01 a161 00 00 91 a162")
	body(FaultTooMany, "4 billion recipients in a not_here_many", "96 32 a161 00 00 dd ffffffff 93 c400 a162 00 c400")
	body(FaultBadLength, "a recipient without an epoch", "96 32 a161 00 00 91 92 c400 a162 c400")
	body(FaultBadValue, "a recipient with a token of 49 bytes", "96 32 a161 00 00 91 93 c431"+strings.Repeat("01", 49)+"a162 00 c400")
	body(FaultBadValue, "a recipient with an epoch of 2^53", "96 32 a161 00 00 91 93 c400 a162 cf0020000000000000 c400")
	body(FaultWrongType, "a recipient whose token is str", "96 32 a161 00 00 91 93 a0 a162 00 c400")
	body(FaultWrongType, "a recipient that is an ID alone", "96 32 a161 00 00 91 a162 c400")
	body(FaultTooMany, "more IDs than max_ids in a watch", "93 40 01 95 a161 a162 a163 a164 a165")
	body(FaultTooMany, "more IDs than max_ids in an unwatch", "92 42 95 a161 a162 a163 a164 a165")
	body(FaultWrongType, "pairs in a watch", "93 40 01 91 92a16200")
	body(FaultWrongType, "an unwatch with a seq", "93 42 01 91 a161")

	body(FaultBadLength, "a deliver with a field too few", "97 21 c40101 a162 a161 00 01 01")
	body(FaultWrongType, "a deliver whose from is bin", "98 21 c40101 a162 c40161 00 01 01 c400")
	body(FaultBadValue, "a deliver with an epoch of 2^53", "98 21 c40101 a162 a161 00 01 cf0020000000000000 c400")
	body(FaultWrongType, "an outcome whose reason is nil", "95 23 01 01 c0 c400")
	body(FaultBadLength, "a result without an epoch in a bound", "93 11 01 91 91 00")
	body(FaultBadValue, "a kick of nobody", "93 16 a0 01")
	body(FaultTooMany, "4 billion changes", "92 43 dd ffffffff")

	body(FaultTooDeep, "an extension 17 arrays deep", "92 08"+strings.Repeat("91", 15)+"90")
	body(FaultTooDeep, "an extension 17 deep in a pair of bind", "94 10 01 00 91 93 a161 00"+strings.Repeat("91", 13)+"90")
	body(FaultTooMany, "an extension that declares 4 billion values", "92 08 dd ffffffff")
	body(FaultWrongType, "an extension of type 0xc1", "92 08 c1")
	body(FaultBadLength, "an extension that is cut short", "92 08 da 0010 61")
	return v
}

// jsonValue is how vectors.json writes a value.
func jsonValue(v any) any {
	switch v := v.(type) {
	case uint64:
		if v > maxEpoch {
			return strconv.FormatUint(v, 10)
		}
	case []byte:
		return hex.EncodeToString(v)
	case []any:
		elems := []any{}
		for _, e := range v {
			elems = append(elems, jsonValue(e))
		}
		return elems
	}
	return v
}

func TestVectors(t *testing.T) {
	made := makeVectors(t)
	var b strings.Builder
	writeVectors(&b, made)
	if *update {
		if err := os.WriteFile(vectorsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(file) != b.String() {
		t.Error(vectorsFile, "is not what this test makes. If that is meant: go test ./codec -run Vectors -update")
	}
	// The file itself counts, whoever wrote it: read it back and put every frame to the codec.
	var read vectors
	if err := json.Unmarshal(file, &read); err != nil {
		t.Fatal(err)
	}
	kinds, faults := map[uint8]bool{}, map[string]bool{}
	for _, v := range read.Good {
		frame, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(v.Name, err)
		}
		kinds[v.Kind] = true
		values, err := decodeLimited(Kind(v.Kind), bodyOf(frame), read.MaxIDs)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		for i, f := range v.Fields {
			if want := generalized(jsonValue(values[i])); !reflect.DeepEqual(f[2], want) {
				t.Errorf("%s: %v is %v, the codec says %v", v.Name, f[0], f[2], want)
			}
		}
		if v.Canonical && !slices.Equal(appendFields(nil, Kind(v.Kind), values), frame) {
			t.Errorf("%s: the codec encodes otherwise", v.Name)
		}
	}
	for _, v := range read.Bad {
		frame, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(v.Name, err)
		}
		faults[v.Fault] = true
		if got := judge(t, v.Name, frame); got != v {
			t.Errorf("the codec says %+v, the file %+v", got, v)
		}
	}
	for _, v := range read.Incomplete {
		frame, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(v.Name, err)
		}
		if _, n, err := Split(frame, read.MaxFrame); n != 0 || err != nil {
			t.Errorf("%s: %d, %v", v.Name, n, err)
		}
	}
	for _, l := range clientLayouts {
		if !kinds[uint8(l.kind)] {
			t.Errorf("no good vector for %v", l.kind)
		}
	}
	for f := FaultZeroLength; f <= FaultUnexpectedKind; f++ {
		if !faults[f.String()] {
			t.Errorf("no bad vector for %v", f)
		}
	}
}

// generalized brings a value to the types that encoding/json makes.
func generalized(v any) any {
	switch v := v.(type) {
	case uint64:
		return float64(v)
	case []any:
		elems := []any{}
		for _, e := range v {
			elems = append(elems, generalized(e))
		}
		return elems
	}
	return v
}

// writeVectors writes one vector a line, so that differences can be read.
func writeVectors(b *strings.Builder, v vectors) {
	line := func(v any) string {
		s, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return string(s)
	}
	section := func(name string, lines []string, last bool) {
		fmt.Fprintf(b, "  %q: [\n    %s\n  ]", name, strings.Join(lines, ",\n    "))
		if !last {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	var words []string
	for _, l := range legend {
		words = append(words, line(l[0])+": "+line(v.Legend[l[0]]))
	}
	fmt.Fprintf(b, "{\n  \"about\": %s,\n  \"legend\": {\n    %s\n  },\n  \"version\": %d,\n  \"max_frame\": %d,\n  \"max_ids\": %d,\n  \"max_multicast\": %d,\n",
		line(v.About), strings.Join(words, ",\n    "), v.Version, v.MaxFrame, v.MaxIDs, v.MaxMany)
	var good, bad, part []string
	for _, g := range v.Good {
		good = append(good, line(g))
	}
	for _, e := range v.Bad {
		bad = append(bad, line(e))
	}
	for _, i := range v.Incomplete {
		part = append(part, line(i))
	}
	section("good", good, false)
	section("bad", bad, false)
	section("incomplete", part, true)
	b.WriteString("}\n")
}
