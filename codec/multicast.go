package codec

import "math"

// In hello, FeatureMulticast says that the client understands deliver_many. In welcome, it says
// that the node understands multicast. A client without the feature gets one deliver for each ID.
const FeatureMulticast = 1 << 0

// Multicast is one message to many IDs. Each ID has its own number and its own outcome: the first
// ID has Seq, the next one Seq+1, and so on. The byte fields are views into the frame.
type Multicast struct {
	Seq     uint64
	From    []byte
	TTL     uint32 // as in Send
	Flags   uint8
	To      IDList // client IDs of 1 to MaxID bytes each
	Payload []byte
	Trace   []byte // TraceLen bytes, or empty
}

// DecodeMulticast reads the body of a multicast frame with at most maxIDs IDs into f. It allocates
// nothing. Its error is an *Error.
func DecodeMulticast(body []byte, maxIDs int, f *Multicast) error {
	r, left := open(body, KindMulticast, 7)
	f.Seq = r.uint("seq", maxUint)
	f.From = r.str("from", MaxID)
	f.TTL = uint32(r.uint("ttl", maxTTL))
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.To = IDList{readElements(&r, elementID, maxIDs)}
	f.Payload = r.bin("payload", anyLen)
	f.Trace, left = r.trace(left)
	return r.close(left)
}

// AppendMulticast appends the whole frame with its length prefix. It uses to and ignores f.To.
func AppendMulticast[T []byte | string](b []byte, f *Multicast, to []T) []byte {
	b, start := appendMulticastHead(b, f, to)
	return end(appendTrace(appendBin(b, f.Payload), f.Trace), start)
}

func appendMulticastHead[T []byte | string](b []byte, f *Multicast, to []T) ([]byte, int) {
	b, start := begin(b, KindMulticast, 7+traceFields(f.Trace))
	b = appendUint(b, f.Seq)
	b = appendStr(b, f.From)
	b = appendUint(b, uint64(f.TTL))
	b = appendUint(b, uint64(f.Flags))
	return appendTexts(b, to), start
}

// recipientOverhead is the most bytes that a recipient adds to a frame besides its ID, on any part
// of the way. Msgpack heads and the epoch are included. A frame to a client carries a token of 44
// bytes. A frame between nodes carries a token of 26 bytes, a session, and why the message came
// back.
const recipientOverhead = 64

// MulticastSize returns the size of a multicast that a node compares with its max_frame. Each ID
// counts its own bytes plus 64, and the message counts 1,024 plus its payload. A multicast within
// the limit causes only frames that fit the limit, too.
func MulticastSize[T []byte | string](payload int, to []T) int {
	n := FrameOverhead + payload
	for _, id := range to {
		n += RecipientSize(id)
	}
	return n
}

// RecipientSize returns the part of MulticastSize that one ID adds.
func RecipientSize[T []byte | string](to T) int { return len(to) + recipientOverhead }

// DeliverMany is one message for several IDs. Between a node and a client, deliver_many carries it
// to one session, and not_here_many returns it. Between two nodes, forward_many carries it, and
// return_many returns it. The byte fields are views into the frame.
type DeliverMany struct {
	From    []byte
	TTL     uint32 // remaining milliseconds; 0 stands for none
	Flags   uint8
	To      RecipientList
	Payload []byte
	Trace   []byte // TraceLen bytes, or empty
}

// Recipient is one ID of a DeliverMany. It holds the fields that Deliver and Forward have per ID.
type Recipient struct {
	Token   []byte
	To      []byte
	Epoch   uint64
	Session []byte // SessionIDLen bytes; between nodes only
	Why     Kind   // in return_many only: KindNotMine or KindNotAttached
}

// Deliver returns the message for one of its recipients. The byte fields are views, like those of f
// and r.
func (f *DeliverMany) Deliver(r *Recipient) Deliver {
	return Deliver{Token: r.Token, To: r.To, From: f.From, TTL: f.TTL, Flags: f.Flags, Epoch: r.Epoch, Payload: f.Payload, Trace: f.Trace}
}

// recipientFields returns the number of fields that a recipient has in a frame of this kind.
func recipientFields(kind Kind) int {
	switch kind {
	case KindForwardMany:
		return 4
	case KindReturnMany:
		return 5
	}
	return 3
}

// DecodeDeliverMany reads the body of a frame with at most maxIDs recipients into f. kind says
// which frame it is: deliver_many, not_here_many, forward_many or return_many. It allocates
// nothing. Its error is an *Error.
func DecodeDeliverMany(body []byte, kind Kind, maxIDs int, f *DeliverMany) error {
	r, left := open(body, kind, 6)
	f.From = r.str("from", MaxID)
	f.TTL = uint32(r.uint("ttl", maxTTL))
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.To = RecipientList{readElements(&r, elementRecipient, maxIDs)}
	f.Payload = r.bin("payload", anyLen)
	f.Trace, left = r.trace(left)
	return r.close(left)
}

// AppendDeliverMany appends such a frame with its length prefix. It uses to and ignores f.To. It
// copies the payload once.
func AppendDeliverMany(b []byte, kind Kind, f *DeliverMany, to []Recipient) []byte {
	fields := recipientFields(kind)
	b, start := begin(b, kind, 6+traceFields(f.Trace))
	b = appendStr(b, f.From)
	b = appendUint32(b, f.TTL)
	b = appendUint(b, uint64(f.Flags))
	b = appendArray(b, len(to))
	for i := range to {
		v := &to[i]
		b = appendArray(b, fields)
		b = appendBin(b, v.Token)
		b = appendStr(b, v.To)
		b = appendEpoch(b, v.Epoch)
		if fields > 3 {
			b = appendBin(b, v.Session)
		}
		if fields > 4 {
			b = appendUint(b, uint64(v.Why))
		}
	}
	return end(appendTrace(appendBin(b, f.Payload), f.Trace), start)
}

// PatchManyTTL overwrites the remaining milliseconds in the body of a frame that AppendDeliverMany
// made. Callers use it after the message has waited. The caller must have decoded f from this very
// body.
func PatchManyTTL(body []byte, f *DeliverMany, ttl uint32) {
	patchUint32(body[2+strSize(len(f.From)):], ttl)
}

// AppendOutcomes appends an outcomes frame with its length prefix. all holds n outcomes, which the
// caller has appended with AppendOneOutcome.
func AppendOutcomes(b []byte, n int, all []byte) []byte {
	b, start := begin(b, KindOutcomes, 2)
	return end(append(appendArray(b, n), all...), start)
}

// AppendOneOutcome appends one element of an outcomes frame. It cuts off a reason after MaxReason
// bytes.
func AppendOneOutcome(b []byte, f *Outcome) []byte {
	b = appendArray(b, 4)
	b = appendUint(b, f.Seq)
	b = appendCode(b, f.Code)
	b = appendReason(b, f.Reason)
	return appendBin(b, f.Reply)
}

// DecodeOutcomes reads the body of an outcomes frame. It allocates nothing. Its error is an *Error.
func DecodeOutcomes(body []byte) (OutcomeList, error) {
	r, left := open(body, KindOutcomes, 2)
	all := OutcomeList{readElements(&r, elementOutcome, anyLen)}
	return all, r.close(left)
}
