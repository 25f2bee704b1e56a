package client

import "distmsg/codec"

// Code is an outcome, as docs/protocol.md lists them. Its String is the outcome word.
type Code = codec.Code

// The outcomes of a send, of one ID of a Bind or Unbind, and what Lookup and Watch return for an
// ID.
const (
	CodeOK = codec.CodeOK // bound, unbound, or online; never the outcome of a send

	CodeAcked    = codec.CodeAcked    // the receiver accepted it
	CodeRejected = codec.CodeRejected // the receiver refused it, with a reason

	CodeNoRoute = codec.CodeNoRoute // the ID is bound nowhere
	// bound, but its session is detached or its node cannot be reached; not written
	CodeUnreachable = codec.CodeUnreachable
	// a queue on the way is full; not written
	CodeOverflow = codec.CodeOverflow
	// the deadline passed before it was written
	CodeExpired = codec.CodeExpired
	// not known here, and the registry cannot be asked
	CodeRegistryUnavailable = codec.CodeRegistryUnavailable
	CodeDraining            = codec.CodeDraining // the node's drain deadline has passed

	CodeDenied     = codec.CodeDenied     // not permitted
	CodeTooLarge   = codec.CodeTooLarge   // over a limit of the node's
	CodeTaken      = codec.CodeTaken      // Bind with RejectNew: another live session holds the ID
	CodeSuperseded = codec.CodeSuperseded // a newer binding of the ID stands
	CodeBadID      = codec.CodeBadID      // the ID is empty or has more than 255 bytes

	CodeTimeout = codec.CodeTimeout // written; no ack before the deadline
	// written; the connection or node that it was written to died before an ack
	CodeLost = codec.CodeLost
)

// Delivered says whether a message reached its receiver. Its String is yes, no or unknown.
type Delivered = codec.Delivered

// What can be known about a delivery.
const (
	DeliveredUnknown = codec.DeliveredUnknown
	DeliveredYes     = codec.DeliveredYes
	DeliveredNo      = codec.DeliveredNo
)

// MaxID is how many bytes an ID has at most; it has at least one.
const MaxID = codec.MaxID
