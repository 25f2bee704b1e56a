package codec

import "math"

// PeerVersion is the version of the protocol between nodes. peer_hello carries the range of
// versions that a node accepts.
const PeerVersion = 1

// These kinds are for links between nodes only. A link uses ping, pong and error as a client's
// connection does. Append only; 100–110 are free. Each comment shows the array;
// docs/peer-protocol.md has the byte tables. D is the node that dialled, A the node that accepted.
const (
	// D->A [80, min, max, cluster str, node str, incarnation, nonce bin16, since, flags, [[name
	// str, value str]…]]
	KindPeerHello Kind = 80
	// A->D [81, version, node str, incarnation, nonce bin16, proof bin32, since, flags, [[name str,
	// value str]…]]
	KindPeerChallenge Kind = 81
	KindPeerProof     Kind = 82 // D->A [82, proof bin32]
	KindPeerReady     Kind = 83 // A->D [83]
	// both [84, token bin, to str, from str, ttl ms, flags, epoch, session bin16, payload bin]
	KindForward Kind = 84
	KindAnswer  Kind = 85 // both [85, token bin, code, session bin16, reason str, reply bin]
	// both [86, as forward]: a message comes back because its session does not hold to, or not
	// under this epoch
	KindNotMine  Kind = 86
	KindRefuse   Kind = 87 // both [87, token bin, code]
	KindGone     Kind = 88 // both [88, session bin16]
	KindAttached Kind = 89 // both [89, session bin16, serial]
	KindDetached Kind = 90 // both [90, session bin16, serial]
	KindExpel    Kind = 91 // both [91, session bin16, id str, epoch]
	// both [92, as forward]: a message comes back because its session is not attached here
	KindNotAttached Kind = 92

	// both [93, from str, ttl ms, flags, [[token bin, to str, epoch, session bin16]…], payload bin]
	KindForwardMany Kind = 93
	// both [94, from str, ttl ms, flags, [[token bin, to str, epoch, session bin16, why]…], payload
	// bin]: the part of a forward_many that comes back
	KindReturnMany Kind = 94

	KindEnded Kind = 95 // both [95, session bin16]

	KindReleased Kind = 96 // both [96, session bin16, id str, epoch]
	KindClaim    Kind = 97 // both [97, session bin16, incarnation, serial, [[id str, epoch]…]]

	// Only to nodes that have sent PeerAnswers.
	KindQuery     Kind = 98 // both [98, number, within ms, verb str, args bin]
	KindQueryPart Kind = 99 // both [99, number, flags, why str, items bin]

	KindAnnounce Kind = 111 // both [111, flags, addr str, peer_addr str]
)

// NonceLen is the length in bytes of a nonce in the handshake of a link.
const NonceLen = 16

// MaxSettings is the largest number of settings in a PeerIdentity. A decoder refuses more.
const MaxSettings = 32

// PeerIdentity is what a node says about itself besides its name. Older nodes neither send it nor
// read it. Since is 0 if the frame has none.
type PeerIdentity struct {
	// when the node's process took its name, in µs since 1970 by its own clock; 0 if it is not
	// given
	Since    uint64
	Flags    uint8     // PeerStarting, PeerAnswers
	Settings []Setting // what the two nodes must agree on
}

// PeerStarting says that a node does not accept clients yet. It ends if another node has its name.
const PeerStarting = 1 << 0

// PeerAnswers says that a node answers queries.
const PeerAnswers = 1 << 1

// Setting is one setting: a name for people, and its value.
type Setting struct{ Name, Value string }

// identityFields is the number of fields that an identity appends to a frame.
const identityFields = 3

// identity reads the fields that an identity appends to a frame of the handshake. If the next
// fields are something else, the caller skips them, like the fields of a newer version. The proof
// of the other node covers the identity, so in that case its proof does not match.
func (r *reader) identity(f *PeerIdentity, left int) (rest int) {
	*f = PeerIdentity{}
	before := *r
	if left < identityFields || r.fault != nil {
		return left
	}
	if r.readIdentity(f); r.fault != nil {
		*f, *r = PeerIdentity{}, before
		return left
	}
	return left - identityFields
}

func (r *reader) readIdentity(f *PeerIdentity) {
	f.Since = r.uint("since", maxUint)
	f.Flags = uint8(r.uint("peer_flags", math.MaxUint8))
	for n := r.list("settings", MaxSettings); n > 0 && r.fault == nil; n-- {
		more := r.pair("settings")
		s := Setting{Name: string(r.str("settings", MaxID)), Value: string(r.str("settings", MaxID))}
		r.skipRest(more, "settings", tupleDepth)
		f.Settings = append(f.Settings, s)
	}
}

// beginIdentified is begin for a frame that carries an identity, if there is one.
func beginIdentified(b []byte, kind Kind, fields int, f *PeerIdentity) (_ []byte, start int) {
	if f.Since != 0 {
		fields += identityFields
	}
	return begin(b, kind, fields)
}

func appendIdentity(b []byte, f *PeerIdentity) []byte {
	if f.Since == 0 {
		return b
	}
	settings := f.Settings[:min(len(f.Settings), MaxSettings)]
	b = appendArray(appendUint(appendUint(b, f.Since), uint64(f.Flags)), len(settings))
	for _, s := range settings {
		b = appendReason(appendReason(appendArray(b, 2), s.Name), s.Value)
	}
	return b
}

// PeerHello opens a peer link.
type PeerHello struct {
	MinVersion, MaxVersion uint64
	Cluster                []byte // must be the same on both sides
	Node                   []byte
	Incarnation            uint64
	Nonce                  []byte // NonceLen bytes, fresh
	PeerIdentity
}

// DecodePeerHello reads the body of a peer_hello frame into f. The byte fields are views. Its error
// is an *Error.
func DecodePeerHello(body []byte, f *PeerHello) error {
	r, left := open(body, KindPeerHello, 7)
	f.MinVersion = r.uint("min_version", maxUint)
	f.MaxVersion = r.uint("max_version", maxUint)
	f.Cluster = r.str("cluster", MaxID)
	f.Node = r.id("node")
	f.Incarnation = r.uint("incarnation", maxUint)
	f.Nonce = r.fixedBin("nonce", NonceLen, false)
	return r.close(r.identity(&f.PeerIdentity, left))
}

// AppendPeerHello appends the whole frame with its length prefix.
func AppendPeerHello(b []byte, f *PeerHello) []byte {
	b, start := beginIdentified(b, KindPeerHello, 7, &f.PeerIdentity)
	b = appendUint(b, f.MinVersion)
	b = appendUint(b, f.MaxVersion)
	b = appendStr(b, f.Cluster)
	b = appendStr(b, f.Node)
	b = appendUint(b, f.Incarnation)
	return end(appendIdentity(appendBin(b, f.Nonce), &f.PeerIdentity), start)
}

// PeerChallenge answers peer_hello. With it the accepting node proves that it knows the cluster's
// secret, and asks the dialling node for the same proof.
type PeerChallenge struct {
	Version     uint64
	Node        []byte
	Incarnation uint64
	Nonce       []byte // NonceLen bytes, fresh
	Proof       []byte // SecretLen bytes
	PeerIdentity
}

// DecodePeerChallenge reads the body of a peer_challenge frame into f. The byte fields are views.
// Its error is an *Error.
func DecodePeerChallenge(body []byte, f *PeerChallenge) error {
	r, left := open(body, KindPeerChallenge, 6)
	f.Version = r.uint("version", maxUint)
	f.Node = r.id("node")
	f.Incarnation = r.uint("incarnation", maxUint)
	f.Nonce = r.fixedBin("nonce", NonceLen, false)
	f.Proof = r.fixedBin("proof", SecretLen, false)
	return r.close(r.identity(&f.PeerIdentity, left))
}

// AppendPeerChallenge appends the whole frame with its length prefix.
func AppendPeerChallenge(b []byte, f *PeerChallenge) []byte {
	b, start := beginIdentified(b, KindPeerChallenge, 6, &f.PeerIdentity)
	b = appendUint(b, f.Version)
	b = appendStr(b, f.Node)
	b = appendUint(b, f.Incarnation)
	b = appendBin(b, f.Nonce)
	return end(appendIdentity(appendBin(b, f.Proof), &f.PeerIdentity), start)
}

// DecodePeerProof reads the proof of the dialling node. The proof is a view. Its error is an
// *Error.
func DecodePeerProof(body []byte) (proof []byte, err error) {
	return decodeBin(body, KindPeerProof, "proof", SecretLen)
}

// AppendPeerProof appends the whole frame with its length prefix.
func AppendPeerProof(b, proof []byte) []byte { return appendBinFrame(b, KindPeerProof, proof) }

// DecodePeerReady checks a peer_ready frame, which says that the link is open. Its error is an
// *Error.
func DecodePeerReady(body []byte) error { return decodeEmpty(body, KindPeerReady) }

// AppendPeerReady appends a peer_ready frame.
func AppendPeerReady(b []byte) []byte { return appendEmpty(b, KindPeerReady) }

// Forward is a message from one node to another. A message that comes back, as not_mine or
// not_attached, has the same fields. The byte fields are views into the frame.
type Forward struct {
	Deliver
	Session []byte // SessionIDLen bytes: holds To under Epoch, as the sending node knows it
}

// DecodeForward reads the body of a forward, not_mine or not_attached frame into f. kind says which
// frame it is. It allocates nothing. Its error is an *Error.
func DecodeForward(body []byte, kind Kind, f *Forward) error {
	r, left := open(body, kind, 9)
	f.Token = r.bin("token", MaxToken)
	f.To = r.id("to")
	f.From = r.str("from", MaxID)
	f.TTL = uint32(r.uint("ttl", maxTTL))
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.Epoch = r.uint("epoch", maxEpoch)
	f.Session = r.fixedBin("session", SessionIDLen, false)
	f.Payload = r.bin("payload", anyLen)
	f.Trace, left = r.trace(left)
	return r.close(left)
}

// AppendForward appends a forward, not_mine or not_attached frame with its length prefix. It copies
// the payload once.
func AppendForward(b []byte, kind Kind, f *Forward) []byte {
	b, start := begin(b, kind, 9+traceFields(f.Trace))
	b = appendBin(b, f.Token)
	b = appendStr(b, f.To)
	b = appendStr(b, f.From)
	b = appendUint32(b, f.TTL) // in the same place as in a deliver: see PatchDeliverTTL
	b = appendUint(b, uint64(f.Flags))
	b = appendEpoch(b, f.Epoch)
	b = appendBin(b, f.Session)
	return end(appendTrace(appendBin(b, f.Payload), f.Trace), start)
}

// Answer carries an ack back to the node that waits for it.
type Answer struct {
	Token   []byte // of the forward
	Code    Code
	Session []byte // SessionIDLen bytes: who acked; the relaying node sets it (S8)
	Reason  []byte
	Reply   []byte
}

// DecodeAnswer reads the body of an answer frame into f. It allocates nothing. Its error is an
// *Error.
func DecodeAnswer(body []byte, f *Answer) error {
	r, left := open(body, KindAnswer, 6)
	f.Token = r.bin("token", MaxToken)
	f.Code = Code(r.uint("code", maxCode))
	f.Session = r.fixedBin("session", SessionIDLen, false)
	f.Reason = r.str("reason", MaxReason)
	f.Reply = r.bin("reply", anyLen)
	return r.close(left)
}

// AppendAnswer appends the whole frame with its length prefix.
func AppendAnswer(b []byte, f *Answer) []byte {
	b, start := begin(b, KindAnswer, 6)
	b = appendBin(b, f.Token)
	b = appendCode(b, f.Code)
	b = appendBin(b, f.Session)
	b = appendReason(b, f.Reason)
	return end(appendBin(b, f.Reply), start)
}

// DecodeRefuse reads a refuse: the receiving node did not write the forward with this token, or its
// receiver refused it. code says which. The reason is for people. It is empty if the node gives
// none. token and reason are views. The error is an *Error.
func DecodeRefuse(body []byte) (token []byte, code Code, reason []byte, err error) {
	r, left := open(body, KindRefuse, 3)
	token = r.bin("token", MaxToken)
	code = Code(r.uint("code", maxCode))
	if left > 0 {
		reason = peekReason(r)
	}
	return token, code, reason, r.close(left)
}

// peekReason reads the next value but leaves it for the caller to skip. The reason is for people,
// so a value of another type does not make the frame invalid.
func peekReason(r reader) []byte {
	reason := r.str("reason", MaxReason)
	if r.fault != nil {
		return nil
	}
	return reason
}

// AppendRefuse appends the whole frame with its length prefix. An empty reason takes no field. It
// cuts off a reason after MaxReason bytes.
func AppendRefuse(b, token []byte, code Code, reason []byte) []byte {
	fields := 3
	if len(reason) > 0 {
		fields++
	}
	b, start := begin(b, KindRefuse, fields)
	b = appendCode(appendBin(b, token), code)
	if len(reason) > 0 {
		b = appendReason(b, reason)
	}
	return end(b, start)
}

// DecodeGone reads a gone: a connection of this session has closed at the sending node. The
// messages that were forwarded to the session there and have no answer yet are lost. The session is
// a view. The error is an *Error.
func DecodeGone(body []byte) (session []byte, err error) {
	return decodeBin(body, KindGone, "session", SessionIDLen)
}

// AppendGone appends the whole frame with its length prefix.
func AppendGone(b, session []byte) []byte { return appendBinFrame(b, KindGone, session) }

// DecodeEnded reads an ended: the session has ended at every node and cannot be resumed. The
// session is a view. The error is an *Error.
func DecodeEnded(body []byte) (session []byte, err error) {
	return decodeBin(body, KindEnded, "session", SessionIDLen)
}

// AppendEnded appends the whole frame with its length prefix.
func AppendEnded(b, session []byte) []byte { return appendBinFrame(b, KindEnded, session) }

// decodeBin reads a frame whose only field is a byte string of n bytes. It returns a view.
func decodeBin(body []byte, kind Kind, field string, n int) ([]byte, error) {
	r, left := open(body, kind, 2)
	v := r.fixedBin(field, n, false)
	return v, r.close(left)
}

func appendBinFrame(b []byte, kind Kind, v []byte) []byte {
	b, start := begin(b, kind, 2)
	return end(appendBin(b, v), start)
}

// DecodePresence reads an attached or detached frame. kind says which frame it is. It returns the
// session, which is a view, and the attach serial. The error is an *Error.
func DecodePresence(body []byte, kind Kind) (session []byte, serial uint64, err error) {
	r, left := open(body, kind, 3)
	session = r.fixedBin("session", SessionIDLen, false)
	serial = r.uint("serial", maxUint)
	return session, serial, r.close(left)
}

// AppendPresence appends an attached or detached frame with its length prefix.
func AppendPresence(b []byte, kind Kind, session []byte, serial uint64) []byte {
	b, start := begin(b, kind, 3)
	return end(appendUint(appendBin(b, session), serial), start)
}

// DecodeExpel reads an expel or released frame. kind says which frame it is. Expel: the session
// lost id to the binding with this epoch. Released: the session released its binding with this
// epoch. The byte fields are views. The error is an *Error.
func DecodeExpel(body []byte, kind Kind) (session, id []byte, epoch uint64, err error) {
	r, left := open(body, kind, 4)
	session = r.fixedBin("session", SessionIDLen, false)
	id = r.id("id")
	epoch = r.uint("epoch", maxEpoch)
	return session, id, epoch, r.close(left)
}

// AppendExpel appends an expel or released frame with its length prefix.
func AppendExpel(b []byte, kind Kind, session []byte, id string, epoch uint64) []byte {
	b, start := begin(b, kind, 4)
	b = appendBin(b, session)
	return end(appendEpoch(appendStr(b, id), epoch), start)
}

// Claim is what the registry says about the receiving node: that a session is attached there, and
// which IDs it holds. Only that node knows whether this is true.
type Claim struct {
	Session     []byte // SessionIDLen bytes
	Incarnation uint64 // incarnation of the node; 0 if the registry names no node
	Serial      uint64 // serial of the attach
	IDs         IDList
}

// DecodeClaim reads the body of a claim frame with at most maxIDs IDs into f. It allocates nothing.
// Its error is an *Error.
func DecodeClaim(body []byte, maxIDs int, f *Claim) error {
	r, left := open(body, KindClaim, 5)
	f.Session = r.fixedBin("session", SessionIDLen, false)
	f.Incarnation = r.uint("incarnation", maxUint)
	f.Serial = r.uint("serial", maxUint)
	f.IDs = IDList{readElements(&r, elementPair, maxIDs)}
	return r.close(left)
}

// AppendClaim appends the whole frame with its length prefix.
func AppendClaim(b, session []byte, incarnation, serial uint64, ids []IDEpoch) []byte {
	b, start := begin(b, KindClaim, 5)
	b = appendUint(appendUint(appendBin(b, session), incarnation), serial)
	return end(appendIDs(b, ids), start)
}

// Announce is what a node says about itself on an open link, at first and after each change.
type Announce struct {
	Flags    uint8  // AnnounceClosed and AnnounceLeaves
	Addr     []byte // where clients connect: host:port; empty if the node accepts none
	PeerAddr []byte // where other nodes connect: host:port; empty if the node does not say it
}

// The flags of an announce.
const (
	AnnounceClosed = 1 << 0 // the node accepts no new sessions
	AnnounceLeaves = 1 << 1 // the node leaves the cluster now
)

// DecodeAnnounce reads the body of an announce frame into f. The byte fields are views. Its error
// is an *Error.
func DecodeAnnounce(body []byte, f *Announce) error {
	r, left := open(body, KindAnnounce, 4)
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.Addr = r.str("addr", MaxID)
	f.PeerAddr = r.str("peer_addr", MaxID)
	return r.close(left)
}

// AppendAnnounce appends the whole frame with its length prefix.
func AppendAnnounce(b []byte, f *Announce) []byte {
	b, start := begin(b, KindAnnounce, 4)
	b = appendUint(b, uint64(f.Flags))
	return end(appendStr(appendStr(b, f.Addr), f.PeerAddr), start)
}
