package codec

import "strconv"

// Code says how a send, or one ID of a bind, unbind, lookup or watch, ended. Codes are append only,
// and the range a code stands in says whether the message was delivered and whether a retry makes
// sense, so that an old SDK classifies a code it has never seen (S4):
//
//	 1–15   delivered
//	16–31   delivered, and refused by the receiver: the application decides
//	32–47   not delivered; a retry is safe
//	48–63   not delivered; a retry is safe, at another node
//	64–79   not delivered; a retry is useless
//	80–95   unknown; retry only what is idempotent
//	96–127  reserved: read as unknown
type Code uint8

// The codes of version 1.
const (
	// bound, unbound, found, watched, changed: the ID is (un)bound or online; never the outcome of
	// a send
	CodeOK Code = 0

	CodeAcked    Code = 1  // the receiver accepted it
	CodeRejected Code = 16 // the receiver refused it, with a reason

	CodeNoRoute Code = 32 // the ID is bound nowhere
	// bound, but its session is detached or its node cannot be reached; not written
	CodeUnreachable         Code = 33
	CodeOverflow            Code = 34 // a queue on the way is full; not written
	CodeExpired             Code = 35 // the deadline passed before it was written
	CodeRegistryUnavailable Code = 36 // not known here, and the registry cannot be asked

	CodeDraining Code = 48 // the node's drain deadline has passed

	CodeDenied   Code = 64 // not permitted
	CodeTooLarge Code = 65 // over the limit that welcome announced
	CodeTaken    Code = 66 // bind with reject-new: another live session holds the ID
	// re-assert or unbind: another binding (with the epoch that is returned) stands
	CodeSuperseded Code = 67
	CodeBadID      Code = 68 // the ID is empty or longer than MaxID bytes

	CodeTimeout Code = 80 // written; no ack before the deadline
	CodeLost    Code = 81 // written; the connection or node it was written to died before an ack
)

// Delivered says whether a message reached its receiver.
type Delivered uint8

// What can be known about a delivery.
const (
	DeliveredUnknown Delivered = iota
	DeliveredYes
	DeliveredNo
)

// String returns yes, no or unknown.
func (d Delivered) String() string {
	switch d {
	case DeliveredYes:
		return "yes"
	case DeliveredNo:
		return "no"
	}
	return "unknown"
}

// Delivered reads the answer off the code's range, so it also holds for codes this version does not
// know.
func (c Code) Delivered() Delivered {
	switch {
	case c >= 1 && c <= 31:
		return DeliveredYes
	case c >= 32 && c <= 79:
		return DeliveredNo
	}
	return DeliveredUnknown
}

// SafeToRetry reports whether sending again cannot deliver twice: true only for the ranges 32–63.
// What is unknown (80 and up) may be sent again if two copies do no harm. It does not say that
// sending again helps: see Temporary.
func (c Code) SafeToRetry() bool { return c >= 32 && c <= 63 }

// Temporary reports whether the cause may pass within seconds and by itself, so that sending again
// after a pause may succeed. It is false for no_route, which lasts until somebody binds the ID. It
// is true for timeout and lost, although SafeToRetry is false for those. Codes that this version
// does not know are judged by their range.
func (c Code) Temporary() bool {
	return c != CodeNoRoute && (c.SafeToRetry() || c.Delivered() == DeliveredUnknown && c != CodeOK)
}

// String returns the outcome word of the protocol document, or code_N for one this version does not
// know.
func (c Code) String() string {
	switch c {
	case CodeOK:
		return "ok"
	case CodeAcked:
		return "acked"
	case CodeRejected:
		return "rejected"
	case CodeNoRoute:
		return "no_route"
	case CodeUnreachable:
		return "unreachable"
	case CodeOverflow:
		return "overflow"
	case CodeExpired:
		return "expired"
	case CodeRegistryUnavailable:
		return "registry_unavailable"
	case CodeDraining:
		return "draining"
	case CodeDenied:
		return "denied"
	case CodeTooLarge:
		return "too_large"
	case CodeTaken:
		return "taken"
	case CodeSuperseded:
		return "superseded"
	case CodeBadID:
		return "bad_id"
	case CodeTimeout:
		return "timeout"
	case CodeLost:
		return "lost"
	}
	return "code_" + strconv.Itoa(int(c))
}

// Outcomes lists the twelve codes a send can end with, in the order of the documentation. The
// caller owns the slice.
func Outcomes() []Code {
	return []Code{
		CodeAcked, CodeRejected, CodeNoRoute, CodeUnreachable, CodeOverflow, CodeExpired,
		CodeDenied, CodeTooLarge, CodeDraining, CodeRegistryUnavailable, CodeTimeout, CodeLost,
	}
}
