package codec

import (
	"fmt"
	"math"
	"slices"
)

// HelloReplace asks the node to close the session's other connections to it, because the client
// knows that they are gone even if the node has not noticed yet.
const HelloReplace = 1 << 0

// WelcomeResumed says that the session named in hello was resumed; without it the session is new.
const WelcomeResumed = 1 << 0

// ErrorClosing says that the connection is closed after this error frame.
const ErrorClosing = 1 << 0

// Hello is the first frame of every connection. Byte fields are views into the frame.
type Hello struct {
	MinVersion, MaxVersion uint64
	Features               uint64 // bits, see FeatureMulticast
	Credentials            []byte // opaque to the protocol
	Session                []byte // SessionIDLen bytes to resume a session, or empty for a new one
	// the resume secret that welcome gave with it, SecretLen bytes, or empty
	Secret []byte
	Flags  uint8
	// name and version of the client, for people; at most MaxReason bytes
	Agent []byte
	// milliseconds: the client sends something at least that often; 0: no promise
	Heartbeat uint64
}

// DecodeHello reads the body of a hello frame into f. Its error is an *Error.
func DecodeHello(body []byte, f *Hello) error {
	r, left := open(body, KindHello, 9)
	f.MinVersion = r.uint("min_version", maxUint)
	f.MaxVersion = r.uint("max_version", maxUint)
	f.Features = r.uint("features", maxUint)
	f.Credentials = r.bin("credentials", anyLen)
	f.Session = r.fixedBin("session", SessionIDLen, true)
	f.Secret = r.fixedBin("secret", SecretLen, true)
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.Agent = r.str("agent", MaxReason)
	if f.Heartbeat = 0; left > 0 {
		f.Heartbeat = r.uint("heartbeat", maxUint)
		left--
	}
	return r.close(left)
}

// AppendHello appends the whole frame, length prefix included; an agent over MaxReason bytes is
// cut.
func AppendHello(b []byte, f *Hello) []byte {
	b, start := begin(b, KindHello, 10)
	b = appendUint(b, f.MinVersion)
	b = appendUint(b, f.MaxVersion)
	b = appendUint(b, f.Features)
	b = appendBin(b, f.Credentials)
	b = appendBin(b, f.Session)
	b = appendBin(b, f.Secret)
	b = appendUint(b, uint64(f.Flags))
	return end(appendUint(appendReason(b, f.Agent), f.Heartbeat), start)
}

// Limits are what a node allows and promises; welcome announces them as an array in this order,
// to which later versions append.
type Limits struct {
	MaxPayload uint64 // bytes of a payload; a send over it ends too_large
	// bytes of a frame after its length prefix; over it the connection is closed
	MaxFrame     uint64
	MaxIDs       uint64 // IDs in one bind, unbind, lookup, watch or unwatch
	MaxInFlight  uint64 // sends of one connection that wait for an ack; one more ends overflow
	Credit       uint64 // bytes of sends without ack that may be sent before the first credit frame
	MaxTTL       uint64 // milliseconds; a longer ttl is read as this
	DefaultTTL   uint64 // milliseconds; what a ttl of 0 stands for when an ack is asked for
	Heartbeat    uint64 // milliseconds of silence after which the node pings
	IdleTimeout  uint64 // milliseconds without a complete frame after which the node closes
	ResumeWindow uint64 // milliseconds a session outlives its last connection
	MaxMulticast uint64 // IDs in one multicast; 0: this node knows none
	MaxWatched   uint64 // IDs that one connection may watch; 0: this node knows no watch
}

// minLimits is how many of them there have always been. One that a node does not announce is 0.
const minLimits = 10

func (l *Limits) fields() [12]*uint64 {
	return [12]*uint64{
		&l.MaxPayload, &l.MaxFrame, &l.MaxIDs, &l.MaxInFlight, &l.Credit,
		&l.MaxTTL, &l.DefaultTTL, &l.Heartbeat, &l.IdleTimeout, &l.ResumeWindow,
		&l.MaxMulticast, &l.MaxWatched,
	}
}

// Member is a node that clients may connect to.
type Member struct{ Node, Addr string }

// Welcome answers hello.
type Welcome struct {
	Version     uint64
	Features    uint64 // those of hello that the node grants
	Node        string
	Incarnation uint64
	Session     []byte // SessionIDLen bytes
	Secret      []byte // SecretLen bytes; proves the right to resume the session
	Flags       uint8
	Limits      Limits
	Members     []Member // the nodes known to this one, itself included; at most MaxMembers
}

// DecodeWelcome reads the body of a welcome frame into f. It allocates for the member list only;
// Session and Secret are views. Its error is an *Error.
func DecodeWelcome(body []byte, f *Welcome) error {
	r, left := open(body, KindWelcome, 10)
	f.Version = r.uint("version", maxUint)
	f.Features = r.uint("features", maxUint)
	f.Node = string(r.str("node", MaxID))
	f.Incarnation = r.uint("incarnation", maxUint)
	f.Session = r.fixedBin("session", SessionIDLen, false)
	f.Secret = r.fixedBin("secret", SecretLen, false)
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	at := r.off
	n := r.array("limits")
	fields := f.Limits.fields()
	if n < minLimits && r.fault == nil {
		r.failAt(at, FaultBadLength, "limits", fmt.Sprintf("%d limits, at least %d are needed", n, minLimits))
	}
	for i, p := range fields {
		if *p = 0; i < n {
			*p = r.uint("limits", maxUint)
		}
	}
	r.skipRest(n-len(fields), "limits", 2)
	f.Members = r.members()
	return r.close(left)
}

// AppendWelcome appends the whole frame, length prefix included. A name of the node over MaxID
// bytes is cut; of the other nodes it names those that AppendMembers does.
func AppendWelcome(b []byte, f *Welcome) []byte {
	b, start := begin(b, KindWelcome, 10)
	b = appendUint(b, f.Version)
	b = appendUint(b, f.Features)
	b = appendReason(b, f.Node)
	b = appendUint(b, f.Incarnation)
	b = appendBin(b, f.Session)
	b = appendBin(b, f.Secret)
	b = appendUint(b, uint64(f.Flags))
	fields := f.Limits.fields()
	b = appendArray(b, len(fields))
	for _, p := range fields {
		b = appendUint(b, *p)
	}
	return end(appendMembers(b, f.Members), start)
}

// DecodeMembers reads a members frame: all current nodes, including the sender. It leaves out wrong
// entries. Its error is an *Error.
func DecodeMembers(body []byte) ([]Member, error) {
	r, left := open(body, KindMembers, 2)
	all := r.members()
	return all, r.close(left)
}

// AppendMembers appends the whole frame. Nodes with a name or an address over MaxID bytes are left
// out; of more than MaxMembers it names the first.
func AppendMembers(b []byte, all []Member) []byte {
	b, start := begin(b, KindMembers, 2)
	return end(appendMembers(b, all), start)
}

// members reads a list of nodes without the wrong entries. A wrong entry of one node must not keep
// a client from all others.
func (r *reader) members() (all []Member) {
	for n := r.list("members", MaxMembers); n > 0 && r.fault == nil; n-- {
		before := *r
		rest := r.pair("members")
		m := Member{Node: string(r.str("members", MaxID)), Addr: string(r.str("members", MaxID))}
		r.skipRest(rest, "members", tupleDepth)
		if r.fault != nil {
			*r = before
			r.skip("members", listDepth)
			continue
		}
		all = append(all, m)
	}
	return all
}

// appendMembers leaves out the nodes that have no room in a frame.
func appendMembers(b []byte, all []Member) []byte {
	all = fitting(all, func(m Member) bool { return len(m.Node) <= MaxID && len(m.Addr) <= MaxID })
	b = appendArray(b, len(all))
	for _, m := range all {
		b = appendStr(appendStr(appendArray(b, 2), m.Node), m.Addr)
	}
	return b
}

// fitting returns those of a list of nodes that fit, at most MaxMembers.
func fitting[T any](all []T, fits func(T) bool) []T {
	if slices.ContainsFunc(all, func(v T) bool { return !fits(v) }) {
		all = slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !fits(v) })
	}
	return all[:min(len(all), MaxMembers)]
}

// DecodePing reads the nonce of a ping.
func DecodePing(body []byte) (nonce uint64, err error) { return decodeNumber(body, KindPing, "nonce") }

// AppendPing appends a ping frame; the other side answers with a pong of the same nonce.
func AppendPing(b []byte, nonce uint64) []byte { return appendNumber(b, KindPing, nonce) }

// DecodePong reads the nonce of a pong.
func DecodePong(body []byte) (nonce uint64, err error) { return decodeNumber(body, KindPong, "nonce") }

// AppendPong appends a pong frame.
func AppendPong(b []byte, nonce uint64) []byte { return appendNumber(b, KindPong, nonce) }

// DecodeCredit reads the bytes of sends without ack that the client may have sent in total on this
// connection.
func DecodeCredit(body []byte) (total uint64, err error) {
	return decodeNumber(body, KindCredit, "total")
}

// AppendCredit appends a credit frame.
func AppendCredit(b []byte, total uint64) []byte { return appendNumber(b, KindCredit, total) }

func decodeNumber(body []byte, kind Kind, field string) (uint64, error) {
	r, left := open(body, kind, 2)
	v := r.uint(field, maxUint)
	return v, r.close(left)
}

func appendNumber(b []byte, kind Kind, v uint64) []byte {
	b, start := begin(b, kind, 2)
	return end(appendUint(b, v), start)
}

// DecodeReassert reads a reassert: the client is to bind all its IDs again under their epochs,
// spread over that many milliseconds.
func DecodeReassert(body []byte) (within uint64, err error) {
	return decodeNumber(body, KindReassert, "within")
}

// AppendReassert appends a reassert frame.
func AppendReassert(b []byte, within uint64) []byte { return appendNumber(b, KindReassert, within) }

// DecodeRelogin reads a relogin: the client's rights on this connection end in that many
// milliseconds, unless it has logged in again on another one. Reason is a view, for people.
func DecodeRelogin(body []byte) (within uint64, reason []byte, err error) {
	r, left := open(body, KindRelogin, 3)
	within = r.uint("within", maxUint)
	reason = r.str("reason", MaxReason)
	return within, reason, r.close(left)
}

// AppendRelogin appends a relogin frame; a reason over MaxReason bytes is cut.
func AppendRelogin(b []byte, within uint64, reason string) []byte {
	b, start := begin(b, KindRelogin, 3)
	return end(appendReason(appendUint(b, within), reason), start)
}

// DecodeBye checks a bye frame: the client ends its session, bindings included.
func DecodeBye(body []byte) error { return decodeEmpty(body, KindBye) }

// AppendBye appends a bye frame.
func AppendBye(b []byte) []byte { return appendEmpty(b, KindBye) }

// DecodeLeave checks a leave frame: the client wants no more messages delivered on this connection.
func DecodeLeave(body []byte) error { return decodeEmpty(body, KindLeave) }

// AppendLeave appends a leave frame.
func AppendLeave(b []byte) []byte { return appendEmpty(b, KindLeave) }

// DecodeLeft checks a left frame: no deliver comes behind it on this connection.
func DecodeLeft(body []byte) error { return decodeEmpty(body, KindLeft) }

// AppendLeft appends a left frame.
func AppendLeft(b []byte) []byte { return appendEmpty(b, KindLeft) }

// decodeEmpty checks a frame without fields.
func decodeEmpty(body []byte, kind Kind) error {
	r, left := open(body, kind, 1)
	return r.close(left)
}

func appendEmpty(b []byte, kind Kind) []byte {
	b, start := begin(b, kind, 1)
	return end(b, start)
}

// ErrorFrame tells a client what it did wrong, or why its connection ends.
type ErrorFrame struct {
	Fault   Fault
	Flags   uint8
	Kind    Kind   // of the offending frame; 0 when there is none
	Seq     uint64 // of the offending frame; 0 when unknown
	Message string // for people
}

// DecodeError reads the body of an error frame into f. Its error is an *Error.
func DecodeError(body []byte, f *ErrorFrame) error {
	r, left := open(body, KindError, 6)
	f.Fault = Fault(r.uint("fault", maxFault))
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.Kind = Kind(r.uint("kind", maxKind))
	f.Seq = r.uint("seq", maxUint)
	f.Message = string(r.str("message", MaxReason))
	return r.close(left)
}

// AppendError appends the whole frame; a message over MaxReason bytes is cut.
func AppendError(b []byte, f *ErrorFrame) []byte {
	b, start := begin(b, KindError, 6)
	b = appendUint(b, min(uint64(f.Fault), maxFault))
	b = appendUint(b, uint64(f.Flags))
	b = appendUint(b, min(uint64(f.Kind), maxKind))
	b = appendUint(b, f.Seq)
	return end(appendReason(b, f.Message), start)
}

// Drain tells a client that the node is leaving and where to go.
type Drain struct {
	// milliseconds: wait a random part of it before moving, so that not all move at once
	Spread   uint64
	Deadline uint64   // milliseconds from now until sends to this node end draining
	Addrs    []string // other nodes; may be empty
}

// DecodeDrain reads the body of a drain frame into f, without addresses that are wrong. Its error
// is an *Error.
func DecodeDrain(body []byte, f *Drain) error {
	r, left := open(body, KindDrain, 4)
	f.Spread = r.uint("spread", maxUint)
	f.Deadline = r.uint("deadline", maxUint)
	f.Addrs = nil
	for n := r.list("addrs", MaxMembers); n > 0 && r.fault == nil; n-- {
		before := r
		addr := string(r.str("addrs", MaxID))
		if r.fault != nil { // it is wrong, as an entry of members may be
			r = before
			r.skip("addrs", listDepth)
			continue
		}
		f.Addrs = append(f.Addrs, addr)
	}
	return r.close(left)
}

// AppendDrain appends the whole frame, length prefix included. Addresses over MaxID bytes are left
// out; of more than MaxMembers it names the first.
func AppendDrain(b []byte, f *Drain) []byte {
	b, start := begin(b, KindDrain, 4)
	b = appendUint(b, f.Spread)
	b = appendUint(b, f.Deadline)
	addrs := fitting(f.Addrs, func(addr string) bool { return len(addr) <= MaxID })
	b = appendArray(b, len(addrs))
	for _, a := range addrs {
		b = appendStr(b, a)
	}
	return end(b, start)
}
