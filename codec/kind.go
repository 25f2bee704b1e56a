package codec

import "strconv"

// Version is the protocol version this package speaks; hello carries the range a client accepts.
const Version = 1

// Kind is the first element of every frame's array and says how the rest is read.
//
// Kinds are append only: a number never gets a second meaning. Ranges:
//
//	  1–15   session (hello, heartbeat, errors, drain, credit, moving)
//	 16–31   bindings
//	 32–47   messages
//	 48–63   multicast
//	 64–79   watch (presence)
//	 80–111  node to node, see peer.go
//	112–127  never assigned: for experiments
type Kind uint8

// maxKind keeps a kind to one byte on the wire.
const maxKind = 127

// The kinds of version 1. The comment shows the array, as it stands on the wire after the
// length prefix; docs/protocol.md has the byte tables. C is the client, N the node.
const (
	// C->N [1, min, max, features, credentials bin, session bin, secret bin, flags, agent str,
	// heartbeat ms]
	KindHello Kind = 1
	// N->C [2, version, features, node str, incarnation, session bin, secret bin, flags, [limits…],
	// [[node str, addr str]…]]
	KindWelcome Kind = 2
	KindPing    Kind = 3 // both [3, nonce]
	KindPong    Kind = 4 // both [4, nonce]
	KindError   Kind = 5 // N->C [5, fault, flags, kind, seq, message str]
	KindDrain   Kind = 6 // N->C [6, spread ms, deadline ms, [addr str…]]
	KindCredit  Kind = 7 // N->C [7, total bytes]
	KindBye     Kind = 8 // C->N [8]

	KindReassert Kind = 9  // N->C [9, within ms]
	KindLeave    Kind = 10 // C->N [10]
	KindLeft     Kind = 11 // N->C [11]
	KindMembers  Kind = 12 // N->C [12, [[node str, addr str]…]]
	KindRelogin  Kind = 13 // N->C [13, within ms, reason str]

	KindBind    Kind = 16 // C->N [16, seq, policy, [[id str, epoch]…]]
	KindBound   Kind = 17 // N->C [17, seq, [[code, epoch]…]]
	KindUnbind  Kind = 18 // C->N [18, seq, [[id str, epoch]…]]
	KindUnbound Kind = 19 // N->C [19, seq, [[code, epoch]…]]
	KindLookup  Kind = 20 // C->N [20, seq, [id str…]]
	KindFound   Kind = 21 // N->C [21, seq, [[code, epoch]…]]
	KindKick    Kind = 22 // N->C [22, id str, epoch]

	KindSend Kind = 32 // C->N [32, seq, to str, from str, ttl ms, flags, payload bin]
	// N->C [33, token bin, to str, from str, ttl ms, flags, epoch, payload bin]
	KindDeliver Kind = 33
	KindAck     Kind = 34 // C->N [34, token bin, code, reason str, reply bin]
	KindOutcome Kind = 35 // N->C [35, seq, code, reason str, reply bin]
	// C->N [36, token bin, to str, from str, ttl ms, flags, epoch, payload bin]
	KindNotHere Kind = 36

	KindMulticast Kind = 48 // C->N [48, seq, from str, ttl ms, flags, [to str…], payload bin]
	// N->C [49, from str, ttl ms, flags, [[token bin, to str, epoch]…], payload bin]
	KindDeliverMany Kind = 49
	// C->N [50, from str, ttl ms, flags, [[token bin, to str, epoch]…], payload bin]
	KindNotHereMany Kind = 50
	KindOutcomes    Kind = 51 // N->C [51, [[seq, code, reason str, reply bin]…]]

	KindWatch   Kind = 64 // C->N [64, seq, [id str…]]
	KindWatched Kind = 65 // N->C [65, seq, [[code, epoch]…]]
	KindUnwatch Kind = 66 // C->N [66, [id str…]]
	KindChanged Kind = 67 // N->C [67, [[id str, code, epoch]…]]
)

// FromClient reports whether only clients send frames of this kind: a client that receives one is
// not connected to a node.
func (k Kind) FromClient() bool {
	switch k {
	case KindHello, KindBye, KindLeave, KindBind, KindUnbind, KindLookup, KindSend, KindAck, KindNotHere,
		KindMulticast, KindNotHereMany, KindWatch, KindUnwatch:
		return true
	}
	return false
}

// String returns the kind's name as the protocol document spells it, or kind_N for one this version
// does not know.
func (k Kind) String() string {
	switch k {
	case KindHello:
		return "hello"
	case KindWelcome:
		return "welcome"
	case KindPing:
		return "ping"
	case KindPong:
		return "pong"
	case KindError:
		return "error"
	case KindDrain:
		return "drain"
	case KindCredit:
		return "credit"
	case KindBye:
		return "bye"
	case KindReassert:
		return "reassert"
	case KindLeave:
		return "leave"
	case KindLeft:
		return "left"
	case KindMembers:
		return "members"
	case KindRelogin:
		return "relogin"
	case KindBind:
		return "bind"
	case KindBound:
		return "bound"
	case KindUnbind:
		return "unbind"
	case KindUnbound:
		return "unbound"
	case KindLookup:
		return "lookup"
	case KindFound:
		return "found"
	case KindKick:
		return "kick"
	case KindSend:
		return "send"
	case KindDeliver:
		return "deliver"
	case KindAck:
		return "ack"
	case KindOutcome:
		return "outcome"
	case KindNotHere:
		return "not_here"
	case KindMulticast:
		return "multicast"
	case KindDeliverMany:
		return "deliver_many"
	case KindNotHereMany:
		return "not_here_many"
	case KindOutcomes:
		return "outcomes"
	case KindWatch:
		return "watch"
	case KindWatched:
		return "watched"
	case KindUnwatch:
		return "unwatch"
	case KindChanged:
		return "changed"
	}
	return k.peerString()
}

// peerString is String for kinds that only nodes send each other.
func (k Kind) peerString() string {
	switch k {
	case KindPeerHello:
		return "peer_hello"
	case KindPeerChallenge:
		return "peer_challenge"
	case KindPeerProof:
		return "peer_proof"
	case KindPeerReady:
		return "peer_ready"
	case KindForward:
		return "forward"
	case KindAnswer:
		return "answer"
	case KindNotMine:
		return "not_mine"
	case KindRefuse:
		return "refuse"
	case KindGone:
		return "gone"
	case KindAttached:
		return "attached"
	case KindDetached:
		return "detached"
	case KindExpel:
		return "expel"
	case KindNotAttached:
		return "not_attached"
	case KindForwardMany:
		return "forward_many"
	case KindReturnMany:
		return "return_many"
	case KindEnded:
		return "ended"
	case KindReleased:
		return "released"
	case KindClaim:
		return "claim"
	case KindQuery:
		return "query"
	case KindQueryPart:
		return "query_part"
	case KindAnnounce:
		return "announce"
	}
	return "kind_" + strconv.Itoa(int(k))
}
