// Package token makes and reads the tokens of messages, and the sums by which a pending entry knows
// its message again.
//
// A token says where the answer to a message belongs, so the node need remember nothing for it.
// Each token is sealed: a keyed hash binds it to one session. So the node can tell a token that
// somebody made up, changed, or was not given from one whose message has ended. The length of a
// token tells its kind:
//
//	AckLen                                 of a message with ack, between nodes: loop, slot and generation of its entry
//	AckLen + ackSealLen                    the same, as a client of this node gets it
//	ReportLen                              of a message without ack whose sender wants to hear of failures: who that is
//	AckLen + handleLen + ackSealLen        of a message with ack that came over a link, and that link
//	ReportLen + handleLen + linkSealLen    of a message with report that came over a link, and that link
//
// Nothing here allocates, blocks or keeps what it is given.
package token

import (
	"encoding/binary"
	"hash/maphash"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// Lengths of tokens between nodes.
const (
	AckLen    = 8              // of a message with ack
	ReportLen = reportBody + 8 // of a message without ack whose sender wants to hear of failures
)

const (
	ackSealLen  = 4
	handleLen   = 2 + 4 + 4
	reportBody  = handleLen + 8
	linkSealLen = 8
)

// Keys are the secrets with which one node seals its tokens. They last as long as the process. Any
// goroutine may call the methods.
type Keys struct {
	ack    sealKey
	seed   maphash.Seed // of the seals of reports, and of sums
	blocks blockKey     // of the sums of long payloads
	loops  int
	links  bool
}

// NewKeys makes new random keys for a node with that many event loops. Without links, no token
// names a link.
func NewKeys(loops int, links bool) Keys {
	return Keys{ack: newSealKey(), seed: maphash.MakeSeed(), blocks: newBlockKey(), loops: loops, links: links}
}

// AppendEntry appends the token of a message with ack in the form that nodes use between them.
func AppendEntry(b []byte, t ackmgr.Token) []byte { return binary.BigEndian.AppendUint64(b, uint64(t)) }

// Ack reads the token of a message with ack in the form that nodes use between them.
func Ack(b []byte) (ackmgr.Token, bool) {
	if len(b) != AckLen {
		return 0, false
	}
	return Entry(b), true
}

// Entry reads a token that this node has made for a message with ack, sealed or not.
func Entry(b []byte) ackmgr.Token { return ackmgr.Token(binary.BigEndian.Uint64(b)) }

// SealAck appends the seal to the token of a message with ack, in place if b has room. It does not
// change other tokens.
func (k *Keys) SealAck(b []byte, session uint64) []byte {
	if len(b) != AckLen {
		return b
	}
	return binary.BigEndian.AppendUint32(b, k.ack.seal(b, session))
}

// OpenAck reads the token of a message with ack that a session has echoed. It returns false if this
// node has not given it to that session.
func (k *Keys) OpenAck(b []byte, session uint64) (t ackmgr.Token, ok bool) {
	if len(b) != AckLen+ackSealLen || binary.BigEndian.Uint32(b[AckLen:]) != k.ack.seal(b[:AckLen], session) {
		return 0, false
	}
	t = Entry(b)
	return t, t.Loop() < k.loops
}

// reportSeal is the seal of a report's token.
func (k *Keys) reportSeal(body []byte, session uint64) uint64 {
	var all [codec.MaxToken]byte
	n := copy(all[:], body)
	return maphash.Bytes(k.seed, binary.BigEndian.AppendUint64(all[:n], session))
}

// AppendReport appends the token of a message without ack to b. h and seq say which connection
// hears of a failure, and of which of its messages.
func (k *Keys) AppendReport(b []byte, h routing.Handle, seq, session uint64) []byte {
	n := len(b)
	b = appendHandle(b, h)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, session) // the seal takes its place
	binary.BigEndian.PutUint64(b[n+reportBody:], maphash.Bytes(k.seed, b[n:]))
	return b
}

// IsReport returns whether this node gave the session this token of a message without ack.
func (k *Keys) IsReport(b []byte, session uint64) bool {
	return len(b) == ReportLen && binary.BigEndian.Uint64(b[reportBody:]) == k.reportSeal(b[:reportBody], session)
}

// Report reads what AppendReport made. It checks neither length nor seal.
func Report(b []byte) (h routing.Handle, seq uint64) {
	return readHandle(b), binary.BigEndian.Uint64(b[handleLen:])
}

// AppendLink appends to b, which must be empty, the token that this node gives a session for a
// message that came over the link h. origin is the token that the message had there.
func (k *Keys) AppendLink(b, origin []byte, h routing.Handle, session uint64) []byte {
	if len(origin) == 0 {
		return b // nobody waits for an answer
	}
	b = appendHandle(append(b, origin...), h)
	if len(origin) == AckLen {
		return binary.BigEndian.AppendUint32(b, k.ack.seal(b, session))
	}
	return binary.BigEndian.AppendUint64(b, k.reportSeal(b, session))
}

// OpenLink takes apart what AppendLink made for a session. It returns false if AppendLink did not.
// It does not check whether the link still exists. origin is a view into b.
func (k *Keys) OpenLink(b []byte, session uint64) (origin []byte, h routing.Handle, ok bool) {
	origin, h, ok = Link(b)
	if !ok {
		return nil, h, false
	}
	body, seal := b[:len(origin)+handleLen], b[len(origin)+handleLen:]
	if len(origin) == AckLen {
		ok = binary.BigEndian.Uint32(seal) == k.ack.seal(body, session)
	} else {
		ok = binary.BigEndian.Uint64(seal) == k.reportSeal(body, session)
	}
	if !ok {
		return nil, h, false
	}
	return origin, h, int(h.Loop) < k.loops && k.links
}

// Link takes apart what AppendLink made, and does not check the seal. It returns false if the
// length is that of another kind. origin is a view into b.
func Link(b []byte) (origin []byte, h routing.Handle, ok bool) {
	n := 0
	switch len(b) {
	case AckLen + handleLen + ackSealLen:
		n = AckLen
	case ReportLen + handleLen + linkSealLen:
		n = ReportLen
	default:
		return nil, h, false
	}
	return b[:n], readHandle(b[n:]), true
}

func appendHandle(b []byte, h routing.Handle) []byte {
	b = binary.BigEndian.AppendUint16(b, h.Loop)
	b = binary.BigEndian.AppendUint32(b, h.Slot)
	return binary.BigEndian.AppendUint32(b, h.Gen)
}

func readHandle(b []byte) routing.Handle {
	return routing.Handle{
		Loop: binary.BigEndian.Uint16(b), Slot: binary.BigEndian.Uint32(b[2:]), Gen: binary.BigEndian.Uint32(b[6:]),
	}
}
