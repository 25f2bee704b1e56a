package codec

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

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
	body(FaultUnknownKind, "a kind of nodes' range that is free", "92 64 01")
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
