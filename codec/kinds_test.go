package codec

import (
	"fmt"
	"math"
	"slices"

	"pgregory.net/rapid"
)

// The tests handle all kinds alike: a frame is a Kind and a list of values in the order of its
// layout. decodeFields and appendFields are the only places that know the structs.

// spec is the layout of one field. A value is a uint64, a string, a []byte (never nil), or a []any.
type spec struct {
	name     string
	typ      string   // int, str, bin, list
	min, max uint64   // int: range; str, bin: bytes; list: elements
	none     bool     // bin: may also be empty
	oneOf    []uint64 // int: the values there are, from min to max
	elem     []spec   // list: one spec, or those of a tuple
}

type layout struct {
	kind   Kind
	fields []spec
}

func integer(name string, max uint64) spec { return spec{name: name, typ: "int", max: max} }
func choice(name string, values ...uint64) spec {
	return spec{name: name, typ: "int", min: slices.Min(values), max: slices.Max(values), oneOf: values}
}
func text(name string, min, max uint64) spec { return spec{name: name, typ: "str", min: min, max: max} }
func opaque(name string, min, max uint64) spec {
	return spec{name: name, typ: "bin", min: min, max: max}
}

func list(name string, max uint64, elem ...spec) spec {
	return spec{name: name, typ: "list", max: max, elem: elem}
}

const testMaxIDs = 64

// layouts are those of all kinds: what clients and nodes say to each other, and what nodes say
// among themselves.
var layouts = slices.Concat(clientLayouts, peerLayouts)

var clientLayouts = func() []layout {
	seq := integer("seq", maxUint)
	ids := list("ids", testMaxIDs, text("id", 0, 300), integer("epoch", maxEpoch))
	results := list("results", testMaxIDs, integer("code", 127), integer("epoch", maxEpoch))
	deliver := []spec{
		opaque("token", 0, MaxToken), text("to", 1, MaxID), text("from", 0, MaxID), integer("ttl", maxTTL),
		integer("flags", 255), integer("epoch", maxEpoch), opaque("payload", 0, 70_000),
	}
	plain := list("ids", testMaxIDs, text("id", 0, 300))
	many := []spec{text("from", 0, MaxID), integer("ttl", maxTTL), integer("flags", 255),
		list("to", testMaxIDs, opaque("token", 0, MaxToken), text("id", 1, MaxID), integer("epoch", maxEpoch)), opaque("payload", 0, 70_000)}
	limits := list("limits", 12, integer("limit", maxUint))
	limits.min = 12 // that many are written; TestOlderLimits reads fewer
	members := list("members", 8, text("node", 0, MaxID), text("addr", 0, MaxID))
	return []layout{
		{KindHello, []spec{integer("min_version", maxUint), integer("max_version", maxUint), integer("features", maxUint),
			opaque("credentials", 0, 300), {name: "session", typ: "bin", min: 16, max: 16, none: true},
			{name: "secret", typ: "bin", min: 32, max: 32, none: true}, integer("flags", 255), text("agent", 0, MaxReason), integer("heartbeat", maxUint)}},
		{KindWelcome, []spec{integer("version", maxUint), integer("features", maxUint), text("node", 0, MaxID), integer("incarnation", maxUint),
			opaque("session", 16, 16), opaque("secret", 32, 32), integer("flags", 255), limits, members}},
		{KindPing, []spec{integer("nonce", maxUint)}},
		{KindPong, []spec{integer("nonce", maxUint)}},
		{KindError, []spec{integer("fault", 127), integer("flags", 255), integer("kind", 127), seq, text("message", 0, MaxReason)}},
		{KindDrain, []spec{integer("spread", maxUint), integer("deadline", maxUint), list("addrs", 8, text("addr", 0, MaxID))}},
		{KindCredit, []spec{integer("total", maxUint)}},
		{KindBye, nil},
		{KindReassert, []spec{integer("within", maxUint)}},
		{KindLeave, nil},
		{KindLeft, nil},
		{KindMembers, []spec{members}},
		{KindRelogin, []spec{integer("within", maxUint), text("reason", 0, MaxReason)}},
		{KindBind, []spec{seq, integer("policy", 1), ids}},
		{KindBound, []spec{seq, results}},
		{KindUnbind, []spec{seq, ids}},
		{KindUnbound, []spec{seq, results}},
		{KindLookup, []spec{seq, plain}},
		{KindFound, []spec{seq, results}},
		{KindKick, []spec{text("id", 1, MaxID), integer("epoch", maxEpoch)}},
		{KindSend, []spec{seq, text("to", 1, MaxID), text("from", 0, MaxID), integer("ttl", maxTTL), integer("flags", 255), opaque("payload", 0, 70_000)}},
		{KindDeliver, deliver},
		{KindAck, []spec{opaque("token", 0, MaxToken), choice("code", uint64(CodeAcked), uint64(CodeRejected)), text("reason", 0, MaxReason), opaque("reply", 0, 70_000)}},
		{KindOutcome, []spec{seq, integer("code", 127), text("reason", 0, MaxReason), opaque("reply", 0, 70_000)}},
		{KindNotHere, deliver},
		{KindMulticast, []spec{seq, text("from", 0, MaxID), integer("ttl", maxTTL), integer("flags", 255),
			list("to", testMaxIDs, text("id", 1, MaxID)), opaque("payload", 0, 70_000)}},
		{KindDeliverMany, many},
		{KindNotHereMany, many},
		{KindOutcomes, []spec{list("outcomes", testMaxIDs, seq, integer("code", 127), text("reason", 0, MaxReason), opaque("reply", 0, 70_000))}},
		{KindWatch, []spec{seq, plain}},
		{KindWatched, []spec{seq, results}},
		{KindUnwatch, []spec{plain}},
		{KindChanged, []spec{list("changes", testMaxIDs, text("id", 1, MaxID), integer("code", 127), integer("epoch", maxEpoch))}},
	}
}()

func layoutOf(kind Kind) layout {
	for _, l := range layouts {
		if l.kind == kind {
			return l
		}
	}
	panic("no layout for " + kind.String())
}

// decodeFields decodes a body of the given kind.
func decodeFields(kind Kind, body []byte) (v []any, err error) {
	return decodeLimited(kind, body, math.MaxInt)
}

func decodeLimited(kind Kind, body []byte, maxIDs int) (v []any, err error) {
	u := func(n uint8) uint64 { return uint64(n) }
	s := func(b []byte) string { return string(b) }
	p := func(b []byte) []byte { return append([]byte{}, b...) }
	switch kind {
	case KindHello:
		var f Hello
		err = DecodeHello(body, &f)
		v = []any{f.MinVersion, f.MaxVersion, f.Features, p(f.Credentials), p(f.Session), p(f.Secret), u(f.Flags), s(f.Agent), f.Heartbeat}
	case KindWelcome:
		var f Welcome
		err = DecodeWelcome(body, &f)
		limits := []any{}
		for _, n := range f.Limits.fields() {
			limits = append(limits, *n)
		}
		v = []any{f.Version, f.Features, f.Node, f.Incarnation, p(f.Session), p(f.Secret), u(f.Flags), limits, memberFields(f.Members)}
	case KindMembers:
		var all []Member
		all, err = DecodeMembers(body)
		v = []any{memberFields(all)}
	case KindPing, KindPong, KindCredit:
		decode := map[Kind]func([]byte) (uint64, error){KindPing: DecodePing, KindPong: DecodePong, KindCredit: DecodeCredit}
		var n uint64
		n, err = decode[kind](body)
		v = []any{n}
	case KindError:
		var f ErrorFrame
		err = DecodeError(body, &f)
		v = []any{uint64(f.Fault), u(f.Flags), uint64(f.Kind), f.Seq, f.Message}
	case KindDrain:
		var f Drain
		err = DecodeDrain(body, &f)
		addrs := []any{}
		for _, a := range f.Addrs {
			addrs = append(addrs, a)
		}
		v = []any{f.Spread, f.Deadline, addrs}
	case KindBye:
		err = DecodeBye(body)
		v = []any{}
	case KindReassert:
		var within uint64
		within, err = DecodeReassert(body)
		v = []any{within}
	case KindRelogin:
		var within uint64
		var reason []byte
		within, reason, err = DecodeRelogin(body)
		v = []any{within, s(reason)}
	case KindLeave:
		err = DecodeLeave(body)
		v = []any{}
	case KindLeft:
		err = DecodeLeft(body)
		v = []any{}
	case KindBind:
		var f Bind
		err = DecodeBind(body, maxIDs, &f)
		v = []any{f.Seq, uint64(f.Policy), idFields(f.IDs, err)}
	case KindUnbind:
		var f Unbind
		err = DecodeUnbind(body, maxIDs, &f)
		v = []any{f.Seq, idFields(f.IDs, err)}
	case KindLookup:
		var f Lookup
		err = DecodeLookup(body, maxIDs, &f)
		v = []any{f.Seq, idFields(f.IDs, err)}
	case KindBound, KindUnbound, KindFound, KindWatched:
		var f Results
		err = DecodeResults(body, kind, &f)
		v = []any{f.Seq, elementFields(&f.All, err, func(v Result) any { return []any{uint64(v.Code), v.Epoch} })}
	case KindKick:
		var id []byte
		var epoch uint64
		id, epoch, err = DecodeKick(body)
		v = []any{s(id), epoch}
	case KindSend:
		var f Send
		err = DecodeSend(body, &f)
		v = []any{f.Seq, s(f.To), s(f.From), uint64(f.TTL), u(f.Flags), p(f.Payload)}
	case KindDeliver, KindNotHere:
		var f Deliver
		if kind == KindDeliver {
			err = DecodeDeliver(body, &f)
		} else {
			err = DecodeNotHere(body, &f)
		}
		v = []any{p(f.Token), s(f.To), s(f.From), uint64(f.TTL), u(f.Flags), f.Epoch, p(f.Payload)}
	case KindAck:
		var f Ack
		err = DecodeAck(body, &f)
		v = []any{p(f.Token), uint64(f.Code), s(f.Reason), p(f.Reply)}
	case KindOutcome:
		var f Outcome
		err = DecodeOutcome(body, &f)
		v = outcomeFields(f)
	case KindMulticast:
		var f Multicast
		err = DecodeMulticast(body, maxIDs, &f)
		v = []any{f.Seq, s(f.From), uint64(f.TTL), u(f.Flags), idFields(f.To, err), p(f.Payload)}
	case KindDeliverMany, KindNotHereMany, KindForwardMany, KindReturnMany:
		var f DeliverMany
		err = DecodeDeliverMany(body, kind, maxIDs, &f)
		to := elementFields(&f.To, err, func(v Recipient) any { return recipientValues(kind, v) })
		v = []any{s(f.From), uint64(f.TTL), u(f.Flags), to, p(f.Payload)}
	case KindOutcomes:
		var all OutcomeList
		all, err = DecodeOutcomes(body)
		v = []any{elementFields(&all, err, func(v Outcome) any { return outcomeFields(v) })}
	case KindAnnounce:
		var f Announce
		err = DecodeAnnounce(body, &f)
		v = []any{u(f.Flags), s(f.Addr), s(f.PeerAddr)}
	case KindClaim:
		var f Claim
		err = DecodeClaim(body, maxIDs, &f)
		v = []any{p(f.Session), f.Incarnation, f.Serial, idFields(f.IDs, err)}
	case KindWatch:
		var f Watch
		err = DecodeWatch(body, maxIDs, &f)
		v = []any{f.Seq, idFields(f.IDs, err)}
	case KindUnwatch:
		var ids IDList
		ids, err = DecodeUnwatch(body, maxIDs)
		v = []any{idFields(ids, err)}
	case KindChanged:
		var all ChangeList
		all, err = DecodeChanged(body)
		v = []any{elementFields(&all, err, func(v Change) any { return []any{s(v.ID), uint64(v.Code), v.Epoch} })}
	default:
		v, err = decodePeer(kind, body)
	}
	if err != nil {
		v = nil
	}
	return v, err
}

func memberFields(all []Member) []any {
	members := []any{}
	for _, m := range all {
		members = append(members, []any{m.Node, m.Addr})
	}
	return members
}

func membersOf(v any) (all []Member) {
	for _, m := range v.([]any) {
		pair := m.([]any)
		all = append(all, Member{Node: pair[0].(string), Addr: pair[1].(string)})
	}
	return all
}

func idFields(l IDList, err error) []any {
	pairs := l.elem == elementPair
	return elementFields(&l, err, func(e IDEpoch) any {
		if pairs {
			return []any{string(e.ID), e.Epoch}
		}
		return string(e.ID)
	})
}

// elementFields reads a list of a frame that decoded without an error to its end.
func elementFields[T any](l interface {
	Len() int
	Next() (T, bool)
}, err error, values func(T) any) []any {
	elems := []any{}
	if err != nil {
		return elems
	}
	for range l.Len() {
		e, ok := l.Next()
		if !ok {
			panic("Len promised more")
		}
		elems = append(elems, values(e))
	}
	if _, ok := l.Next(); ok {
		panic("Next goes on past Len")
	}
	return elems
}

func outcomeFields(f Outcome) []any {
	return []any{f.Seq, uint64(f.Code), string(f.Reason), append([]byte{}, f.Reply...)}
}

// recipientValues are those that a recipient has in a frame of that kind.
func recipientValues(kind Kind, v Recipient) []any {
	p := func(b []byte) []byte { return append([]byte{}, b...) }
	values := []any{p(v.Token), string(v.To), v.Epoch}
	if kind == KindForwardMany || kind == KindReturnMany {
		values = append(values, p(v.Session))
	}
	if kind == KindReturnMany {
		values = append(values, uint64(v.Why))
	}
	return values
}

func recipientOf(v []any) Recipient {
	r := Recipient{Token: v[0].([]byte), To: []byte(v[1].(string)), Epoch: v[2].(uint64)}
	if len(v) > 3 {
		r.Session = v[3].([]byte)
	}
	if len(v) > 4 {
		r.Why = Kind(v[4].(uint64))
	}
	return r
}

// appendFields appends a whole frame.
func appendFields(b []byte, kind Kind, v []any) []byte {
	n := func(i int) uint64 { return v[i].(uint64) }
	s := func(i int) []byte { return []byte(v[i].(string)) }
	p := func(i int) []byte { return v[i].([]byte) }
	ids := func(i int) (ids []IDEpoch) {
		for _, e := range v[i].([]any) {
			pair := e.([]any)
			ids = append(ids, IDEpoch{ID: []byte(pair[0].(string)), Epoch: pair[1].(uint64)})
		}
		return ids
	}
	plain := func(i int) (ids [][]byte) {
		for _, e := range v[i].([]any) {
			ids = append(ids, []byte(e.(string)))
		}
		return ids
	}
	switch kind {
	case KindHello:
		return AppendHello(b, &Hello{MinVersion: n(0), MaxVersion: n(1), Features: n(2), Credentials: p(3), Session: p(4), Secret: p(5), Flags: uint8(n(6)), Agent: s(7), Heartbeat: n(8)})
	case KindWelcome:
		f := Welcome{Version: n(0), Features: n(1), Node: v[2].(string), Incarnation: n(3), Session: p(4), Secret: p(5), Flags: uint8(n(6))}
		for i, l := range f.Limits.fields() {
			*l = v[7].([]any)[i].(uint64)
		}
		f.Members = membersOf(v[8])
		return AppendWelcome(b, &f)
	case KindMembers:
		return AppendMembers(b, membersOf(v[0]))
	case KindPing:
		return AppendPing(b, n(0))
	case KindPong:
		return AppendPong(b, n(0))
	case KindError:
		return AppendError(b, &ErrorFrame{Fault: Fault(n(0)), Flags: uint8(n(1)), Kind: Kind(n(2)), Seq: n(3), Message: v[4].(string)})
	case KindDrain:
		f := Drain{Spread: n(0), Deadline: n(1)}
		for _, a := range v[2].([]any) {
			f.Addrs = append(f.Addrs, a.(string))
		}
		return AppendDrain(b, &f)
	case KindCredit:
		return AppendCredit(b, n(0))
	case KindBye:
		return AppendBye(b)
	case KindReassert:
		return AppendReassert(b, n(0))
	case KindRelogin:
		return AppendRelogin(b, n(0), v[1].(string))
	case KindLeave:
		return AppendLeave(b)
	case KindLeft:
		return AppendLeft(b)
	case KindClaim:
		return AppendClaim(b, p(0), n(1), n(2), ids(3))
	case KindAnnounce:
		return AppendAnnounce(b, &Announce{Flags: uint8(n(0)), Addr: []byte(v[1].(string)), PeerAddr: []byte(v[2].(string))})
	case KindBind:
		return AppendBind(b, n(0), Policy(n(1)), ids(2))
	case KindUnbind:
		return AppendUnbind(b, n(0), ids(1))
	case KindLookup:
		return AppendLookup(b, n(0), plain(1))
	case KindBound, KindUnbound, KindFound, KindWatched:
		var results []Result
		for _, e := range v[1].([]any) {
			pair := e.([]any)
			results = append(results, Result{Code: Code(pair[0].(uint64)), Epoch: pair[1].(uint64)})
		}
		return AppendResults(b, kind, n(0), results)
	case KindKick:
		return AppendKick(b, v[0].(string), n(1))
	case KindSend:
		return AppendSend(b, &Send{Seq: n(0), To: s(1), From: s(2), TTL: uint32(n(3)), Flags: uint8(n(4)), Payload: p(5)})
	case KindDeliver, KindNotHere:
		f := Deliver{Token: p(0), To: s(1), From: s(2), TTL: uint32(n(3)), Flags: uint8(n(4)), Epoch: n(5), Payload: p(6)}
		if kind == KindDeliver {
			return AppendDeliver(b, &f)
		}
		return AppendNotHere(b, &f)
	case KindAck:
		return AppendAck(b, &Ack{Token: p(0), Code: Code(n(1)), Reason: s(2), Reply: p(3)})
	case KindOutcome:
		return AppendOutcome(b, outcomeOf(v))
	case KindMulticast:
		f := Multicast{Seq: n(0), From: s(1), TTL: uint32(n(2)), Flags: uint8(n(3)), Payload: p(5)}
		return AppendMulticast(b, &f, plain(4))
	case KindDeliverMany, KindNotHereMany, KindForwardMany, KindReturnMany:
		f := DeliverMany{From: s(0), TTL: uint32(n(1)), Flags: uint8(n(2)), Payload: p(4)}
		var to []Recipient
		for _, e := range v[3].([]any) {
			to = append(to, recipientOf(e.([]any)))
		}
		return AppendDeliverMany(b, kind, &f, to)
	case KindOutcomes:
		var all []byte
		for _, e := range v[0].([]any) {
			all = AppendOneOutcome(all, outcomeOf(e.([]any)))
		}
		return AppendOutcomes(b, len(v[0].([]any)), all)
	case KindWatch:
		return AppendWatch(b, n(0), plain(1))
	case KindUnwatch:
		return AppendUnwatch(b, plain(0))
	case KindChanged:
		var all []Change
		for _, e := range v[0].([]any) {
			e := e.([]any)
			all = append(all, Change{ID: []byte(e[0].(string)), Code: Code(e[1].(uint64)), Epoch: e[2].(uint64)})
		}
		return AppendChanged(b, all)
	}
	return appendPeer(b, kind, v)
}

func outcomeOf(v []any) *Outcome {
	return &Outcome{Seq: v[0].(uint64), Code: Code(v[1].(uint64)), Reason: []byte(v[2].(string)), Reply: v[3].([]byte)}
}

// draw makes up a value for each field, often at a limit or where the encoding changes.
func (l layout) draw(t *rapid.T) []any {
	v := []any{}
	for _, f := range l.fields {
		v = append(v, f.draw(t))
	}
	return v
}

func (f spec) draw(t *rapid.T) any {
	switch f.typ {
	case "int":
		if f.oneOf != nil {
			return rapid.SampledFrom(f.oneOf).Draw(t, f.name)
		}
		return f.size(t, f.name, []uint64{0, 1, 127, 128, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64, math.MaxUint64})
	case "list":
		elems := []any{}
		for range f.size(t, f.name+" count", []uint64{0, 1, 15, 16}) {
			elems = append(elems, f.element(func(_ int, e spec) any { return e.draw(t) }))
		}
		return elems
	}
	n := f.size(t, f.name+" length", []uint64{0, 1, 31, 32, 255, 256, 65535, 65536})
	if f.none && rapid.Bool().Draw(t, "none") {
		n = 0
	}
	fill := byte(rapid.IntRange(0, 255).Draw(t, f.name))
	b := make([]byte, n)
	for i := range b {
		b[i] = fill + byte(i)
	}
	if f.typ == "str" {
		return string(b)
	}
	return b
}

// element makes an element of a list: one value, or a tuple of them.
func (f spec) element(value func(i int, e spec) any) any {
	if len(f.elem) == 1 {
		return value(0, f.elem[0])
	}
	tuple := []any{}
	for i, e := range f.elem {
		tuple = append(tuple, value(i, e))
	}
	return tuple
}

// size draws a number within f's limits: one of the edges that fit, or any.
func (f spec) size(t *rapid.T, label string, edges []uint64) uint64 {
	fit := []uint64{f.min, f.max}
	for _, e := range edges {
		if e >= f.min && e <= f.max {
			fit = append(fit, e)
		}
	}
	small := min(f.max, f.min+40)
	if f.typ == "int" {
		small = f.max
	}
	return rapid.OneOf(rapid.SampledFrom(fit), rapid.Uint64Range(f.min, small)).Draw(t, label)
}

// example returns a small valid frame of each kind: seeds for fuzzing, material for the rest.
func example(kind Kind) []byte {
	v := []any{}
	for i, f := range layoutOf(kind).fields {
		v = append(v, f.example(kind, i))
	}
	return appendFields(nil, kind, v)
}

func (f spec) example(kind Kind, i int) any {
	switch f.typ {
	case "int":
		if f.name == "epoch" {
			return uint64(1_700_000_000_000_000)
		}
		if f.oneOf != nil {
			return f.oneOf[0]
		}
		return min(f.max, uint64(i)*300+1)
	case "str":
		return f.name + "-" + kind.String()
	case "bin":
		b := make([]byte, max(f.min, min(f.max, 9)))
		for i := range b {
			b[i] = byte(i + 1)
		}
		return b
	}
	elems := []any{}
	for j := range max(f.min, 2) {
		elems = append(elems, f.element(func(_ int, e spec) any { return e.example(kind, int(j)) }))
	}
	return elems
}

// bodyOf strips the length prefix.
func bodyOf(frame []byte) []byte {
	body, n, err := Split(frame, math.MaxInt32)
	if err != nil || n != len(frame) {
		panic(fmt.Sprintf("not one whole frame: %x (%v)", frame, err))
	}
	return body
}

// raw frames hand-made bytes.
func raw(body ...byte) []byte {
	return append([]byte{byte(len(body) >> 24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}
