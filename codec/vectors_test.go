package codec

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
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

// goodVector is a frame and what it says. Fields are [name, type, value]: int as a number, or as a
// decimal string from 2^53 on; str as a string; bin as hex; list as an array of such values.
type goodVector struct {
	Name     string `json:"name"`
	Kind     uint8  `json:"kind"`
	KindName string `json:"kind_name"`
	From     string `json:"from"` // C, N or both
	// the shortest encoding without extensions (the ttl of deliver, not_here and the frames of
	// many: always 5 bytes)
	Canonical bool     `json:"canonical"`
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
	Kind   string `json:"kind"`  // "" when it was not known yet
	Field  string `json:"field"` // "" when the frame as a whole is wrong
	// where the value at fault begins, in bytes after the length prefix
	Offset int `json:"offset"`
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

// examples is one frame of every kind, in the order of the kinds: the examples of the protocol
// documents. They tell a story.
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
		KindRelogin:  {n(10_000), "the credentials have expired"},
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
