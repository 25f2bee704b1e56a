package engine

import (
	"encoding/binary"
	"hash/maphash"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// Tokens say where the answer to a message belongs, and nothing needs to be remembered for them.
// Each is sealed: a keyed hash binds it to one session. So the node can tell a token that was made
// up, changed, or given to another session from one whose message has ended. Their lengths tell
// them apart:
//
//	ackTokenLen                                     of a message with ack, between nodes: loop, slot and generation of its entry
//	ackTokenLen + ackSealLen                        the same, as a client of this node is given it
//	reportTokenLen                                  of a message without ack whose sender asked for failures: who that is
//	ackTokenLen + linkHandleLen + ackSealLen        of a message with ack that came over a link, and that link
//	reportTokenLen + linkHandleLen + linkSealLen    likewise without ack
const (
	ackTokenLen    = 8
	ackSealLen     = 4
	reportBody     = 2 + 4 + 4 + 8
	reportTokenLen = reportBody + 8
	linkHandleLen  = 2 + 4 + 4
	linkSealLen    = 8
)

const badTokenText = "the token was never given to this session"

// ackToken reads the token of a message with ack as it stands between nodes.
func ackToken(b []byte) (ackmgr.Token, bool) {
	if len(b) != ackTokenLen {
		return 0, false
	}
	return bareToken(b), true
}

// bareToken reads a token that this node has made for a message with ack, sealed or not.
func bareToken(b []byte) ackmgr.Token { return ackmgr.Token(binary.BigEndian.Uint64(b)) }

// sealToken appends the seal to the token of a message with ack, in place if b has room. It leaves
// others as they are.
func (e *Engine) sealToken(b []byte, session uint64) []byte {
	if len(b) != ackTokenLen {
		return b
	}
	return binary.BigEndian.AppendUint32(b, e.sealKey.ofAck(b, session))
}

// openToken reads the token of a message with ack that a session has echoed. It returns false if
// this node has not given it to that session.
func (e *Engine) openToken(b []byte, session uint64) (t ackmgr.Token, ok bool) {
	if len(b) != ackTokenLen+ackSealLen || binary.BigEndian.Uint32(b[ackTokenLen:]) != e.sealKey.ofAck(b[:ackTokenLen], session) {
		return 0, false
	}
	t = bareToken(b)
	return t, t.Loop() < len(e.loops)
}

// sealOf is the seal of a report's token.
func (e *Engine) sealOf(body []byte, session uint64) uint64 {
	var all [codec.MaxToken]byte
	n := copy(all[:], body)
	return maphash.Bytes(e.seed, binary.BigEndian.AppendUint64(all[:n], session))
}

func (e *Engine) appendReportToken(b []byte, h routing.Handle, seq, session uint64) []byte {
	b = appendHandle(b, h)
	b = binary.BigEndian.AppendUint64(b, seq)
	return binary.BigEndian.AppendUint64(b, e.sealOf(b, session))
}

// isReportToken reports whether a session was given this token.
func (e *Engine) isReportToken(b []byte, session uint64) bool {
	return len(b) == reportTokenLen && binary.BigEndian.Uint64(b[reportBody:]) == e.sealOf(b[:reportBody], session)
}

// readReportToken reads a token that is known to be one.
func readReportToken(b []byte) (h routing.Handle, seq uint64) {
	return readHandle(b), binary.BigEndian.Uint64(b[linkHandleLen:])
}

// appendLinkToken makes the token that a session is given for a message that came over a link with
// that token.
func (e *Engine) appendLinkToken(b, token []byte, h routing.Handle, session uint64) []byte {
	if len(token) == 0 {
		return b // nobody waits for an answer
	}
	b = appendHandle(append(b, token...), h)
	if len(token) == ackTokenLen {
		return binary.BigEndian.AppendUint32(b, e.sealKey.ofAck(b, session))
	}
	return binary.BigEndian.AppendUint64(b, e.sealOf(b, session))
}

// splitLinkToken takes apart what appendLinkToken made for a session. It does not check whether the
// link is still there.
func (e *Engine) splitLinkToken(b []byte, session uint64) (token []byte, h routing.Handle, ok bool) {
	n, ok := tokenOrigin(b)
	if !ok {
		return nil, h, false
	}
	body, seal := b[:n+linkHandleLen], b[n+linkHandleLen:]
	if n == ackTokenLen {
		ok = binary.BigEndian.Uint32(seal) == e.sealKey.ofAck(body, session)
	} else {
		ok = binary.BigEndian.Uint64(seal) == e.sealOf(body, session)
	}
	if !ok {
		return nil, h, false
	}
	token, h = readLinkToken(b, n)
	return token, h, int(h.Loop) < len(e.loops) && e.cluster != nil
}

// readLinkToken reads a token that is known to be one, with n bytes of the other node's.
func readLinkToken(b []byte, n int) ([]byte, routing.Handle) { return b[:n], readHandle(b[n:]) }

// tokenOrigin tells by its length how much of a token another node gave. It returns false if that
// is nothing.
func tokenOrigin(b []byte) (n int, ok bool) {
	switch len(b) {
	case ackTokenLen + linkHandleLen + ackSealLen:
		return ackTokenLen, true
	case reportTokenLen + linkHandleLen + linkSealLen:
		return reportTokenLen, true
	}
	return 0, false
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
