package codec

import (
	"fmt"
	"strconv"
)

// Fault is the reason of an error frame. Append only.
type Fault uint8

const maxFault = 127

// The faults of version 1. All but unknown_kind and bad_token end the connection.
const (
	FaultZeroLength    Fault = 1 // a length prefix of zero
	FaultFrameTooLarge Fault = 2 // a length prefix over the limit
	// the array ends before or after the frame's end, or has too few fields
	FaultBadLength Fault = 3
	FaultWrongType Fault = 4 // a field is of another msgpack type
	FaultTooDeep   Fault = 5 // nested deeper than MaxDepth
	FaultTooMany   Fault = 6 // a count over its limit, or over the bytes that remain
	FaultBadValue  Fault = 7 // right type, impossible value
	// a kind this node does not know; the frame is ignored, the connection stays
	FaultUnknownKind     Fault = 8
	FaultUnexpectedKind  Fault = 9  // a kind that is not allowed from this side or in this state
	FaultBadVersion      Fault = 10 // no common protocol version
	FaultUnauthenticated Fault = 11 // the credentials were refused
	FaultHelloTimeout    Fault = 12 // no hello in time
	FaultIdleTimeout     Fault = 13 // no complete frame in time
	FaultSlowConsumer    Fault = 14 // did not read what was sent to it
	FaultCreditExceeded  Fault = 15 // sent more frames without ack than its credit
	// an ack token that was never given to this session; the connection stays
	FaultBadToken     Fault = 16
	FaultGoingAway    Fault = 17 // the node is shutting down
	FaultFenced       Fault = 18 // the node was stopped for a while and starts again
	FaultReplaced     Fault = 19 // a newer connection of the session asked to replace this one
	FaultSessionEnded Fault = 20 // the session was ended
	FaultInternal     Fault = 21 // the node's own failure
	// between nodes: another node has taken the name of this one since
	FaultNameTaken Fault = 22
)

// LastFault is the highest fault of this version.
const LastFault = FaultNameTaken

// String returns the fault's name as the protocol document spells it.
func (f Fault) String() string {
	switch f {
	case FaultZeroLength:
		return "zero_length"
	case FaultFrameTooLarge:
		return "frame_too_large"
	case FaultBadLength:
		return "bad_length"
	case FaultWrongType:
		return "wrong_type"
	case FaultTooDeep:
		return "too_deep"
	case FaultTooMany:
		return "too_many"
	case FaultBadValue:
		return "bad_value"
	case FaultUnknownKind:
		return "unknown_kind"
	case FaultUnexpectedKind:
		return "unexpected_kind"
	case FaultBadVersion:
		return "bad_version"
	case FaultUnauthenticated:
		return "unauthenticated"
	case FaultHelloTimeout:
		return "hello_timeout"
	case FaultIdleTimeout:
		return "idle_timeout"
	case FaultSlowConsumer:
		return "slow_consumer"
	case FaultCreditExceeded:
		return "credit_exceeded"
	case FaultBadToken:
		return "bad_token"
	case FaultGoingAway:
		return "going_away"
	case FaultFenced:
		return "fenced"
	case FaultReplaced:
		return "replaced"
	case FaultSessionEnded:
		return "session_ended"
	case FaultInternal:
		return "internal"
	case FaultNameTaken:
		return "name_taken"
	}
	return "fault_" + strconv.Itoa(int(f))
}

// Error is what decoding returns for bytes that are not a frame of the expected kind.
type Error struct {
	Fault Fault
	Kind  Kind   // 0 when the fault was found before the kind
	Field string // the field's name in the protocol document, or "" for the frame as a whole
	// where the value at fault begins, in bytes after the length prefix (for Scan: into the
	// payload)
	Offset int
	Detail string // what was there and what would have been right
}

// Error names the fault, the kind, the field and the place.
func (e *Error) Error() string {
	where := "frame"
	if e.Kind != 0 {
		where = e.Kind.String()
	}
	if e.Field != "" {
		where += "." + e.Field
	}
	return fmt.Sprintf("%s: %s at byte %d: %s", e.Fault, where, e.Offset, e.Detail)
}
