package codec

import "math"

// FeatureMulticast in hello says that the client understands deliver_many, and in welcome that the
// node understands multicast. A client without it gets a deliver for each ID.
const FeatureMulticast = 1 << 0

// Multicast is one message to many IDs. Its numbers are Seq for the first ID, Seq+1 for the next,
// and so on: each has an outcome of its own. The byte fields are views into the frame.
type Multicast struct {
	Seq     uint64
	From    []byte
	TTL     uint32 // as in Send
	Flags   uint8
	To      IDList // of client IDs, 1 to MaxID bytes each
	Payload []byte
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
	return r.close(left)
}

// AppendMulticast appends the whole frame, length prefix included; to stands for f.To.
func AppendMulticast[T []byte | string](b []byte, f *Multicast, to []T) []byte {
	b, start := appendMulticastHead(b, f, to)
	return end(appendBin(b, f.Payload), start)
}

func appendMulticastHead[T []byte | string](b []byte, f *Multicast, to []T) ([]byte, int) {
	b, start := begin(b, KindMulticast, 7)
	b = appendUint(b, f.Seq)
	b = appendStr(b, f.From)
	b = appendUint(b, uint64(f.TTL))
	b = appendUint(b, uint64(f.Flags))
	return appendTexts(b, to), start
}

// recipientOverhead is what a recipient takes beside its ID at most, wherever the message goes,
// heads and epoch included: to a client with a token of 44 bytes, between nodes with one of 26, a
// session, and why it came back.
const recipientOverhead = 64

// MulticastSize is what a multicast of a payload to IDs counts, for a node's limit of max_frame:
// with that the frames that come of it on their way fit the limit, too. Each ID counts as many
// bytes as it has and 64 more, the message 1,024.
func MulticastSize[T []byte | string](payload int, to []T) int {
	n := FrameOverhead + payload
	for _, id := range to {
		n += RecipientSize(id)
	}
	return n
}

// RecipientSize is what one ID counts of that.
func RecipientSize[T []byte | string](to T) int { return len(to) + recipientOverhead }

// DeliverMany is one message on its way to several IDs of one session (deliver_many), or back from
// it (not_here_many); or from one node to another (forward_many), or back (return_many). The byte
// fields are views into the frame.
type DeliverMany struct {
	From    []byte
	TTL     uint32 // remaining milliseconds; 0 stands for none
	Flags   uint8
	To      RecipientList
	Payload []byte
}

// Recipient is one ID of a DeliverMany, with the fields that Deliver and Forward have for it.
type Recipient struct {
	Token   []byte
	To      []byte
	Epoch   uint64
	Session []byte // SessionIDLen bytes; between nodes only
	Why     Kind   // in return_many only: KindNotMine or KindNotAttached
}

// Deliver is the message for one of its recipients. Its byte fields are views, as those of f and r.
func (f *DeliverMany) Deliver(r *Recipient) Deliver {
	return Deliver{Token: r.Token, To: r.To, From: f.From, TTL: f.TTL, Flags: f.Flags, Epoch: r.Epoch, Payload: f.Payload}
}

// recipientFields is how many fields a recipient has in a frame of that kind.
func recipientFields(kind Kind) int {
	switch kind {
	case KindForwardMany:
		return 4
	case KindReturnMany:
		return 5
	}
	return 3
}

// DecodeDeliverMany reads the body of a deliver_many, not_here_many, forward_many or return_many
// frame (kind says which) with at most maxIDs recipients into f. It allocates nothing. Its error is
// an *Error.
func DecodeDeliverMany(body []byte, kind Kind, maxIDs int, f *DeliverMany) error {
	r, left := open(body, kind, 6)
	f.From = r.str("from", MaxID)
	f.TTL = uint32(r.uint("ttl", maxTTL))
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.To = RecipientList{readElements(&r, elementRecipient, maxIDs)}
	f.Payload = r.bin("payload", anyLen)
	return r.close(left)
}

// AppendDeliverMany appends such a frame, length prefix included; to stands for f.To. The payload
// is copied once, here.
func AppendDeliverMany(b []byte, kind Kind, f *DeliverMany, to []Recipient) []byte {
	fields := recipientFields(kind)
	b, start := begin(b, kind, 6)
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
	return end(appendBin(b, f.Payload), start)
}

// PatchManyTTL overwrites the remaining milliseconds in the body of a frame that AppendDeliverMany
// made, after the message has waited. f must have been decoded from that very body.
func PatchManyTTL(body []byte, f *DeliverMany, ttl uint32) {
	patchUint32(body[2+strSize(len(f.From)):], ttl)
}

// AppendOutcomes appends an outcomes frame, length prefix included, of n outcomes that
// AppendOneOutcome has appended to all.
func AppendOutcomes(b []byte, n int, all []byte) []byte {
	b, start := begin(b, KindOutcomes, 2)
	return end(append(appendArray(b, n), all...), start)
}

// AppendOneOutcome appends what is to be one element of an outcomes frame; a reason over MaxReason
// bytes is cut.
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
