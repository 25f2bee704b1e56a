package codec

import "math"

// Flags of send and deliver.
const (
	FlagAck    = 1 << 0 // the sender waits for an outcome; the receiver answers with ack
	FlagReport = 1 << 1 // without FlagAck: the sender hears if the message could not be delivered
)

const (
	maxUint  = math.MaxUint64
	maxEpoch = 1<<53 - 1 // every language holds it exactly (S10)
	maxTTL   = math.MaxUint32
	maxCode  = 127
)

// Send is a message on its way from a client to a node. The byte fields are views into the
// frame it was decoded from and live as long as that buffer's contents.
type Send struct {
	Seq     uint64 // the client's number for this send on this connection; comes back in outcome
	To      []byte
	From    []byte // an ID this session holds, or empty where the node allows that
	TTL     uint32 // remaining milliseconds; 0 stands for the node's default
	Flags   uint8
	Payload []byte // opaque to nodes
	Trace   []byte // TraceLen bytes, or empty
}

// DecodeSend reads the body of a send frame into f. It allocates nothing. Its error is an *Error.
func DecodeSend(body []byte, f *Send) error {
	if plainSend(body, f) {
		return nil
	}
	return decodeSend(body, f)
}

func decodeSend(body []byte, f *Send) error {
	r, left := open(body, KindSend, 7)
	f.Seq = r.uint("seq", maxUint)
	f.To = r.id("to")
	f.From = r.str("from", MaxID)
	f.TTL = uint32(r.uint("ttl", maxTTL))
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.Payload = r.bin("payload", anyLen)
	f.Trace, left = r.trace(left)
	return r.close(left)
}

// AppendSend appends the whole frame, length prefix included.
func AppendSend(b []byte, f *Send) []byte {
	b, start := appendSendHead(b, f)
	return end(appendTrace(appendBin(b, f.Payload), f.Trace), start)
}

func appendSendHead(b []byte, f *Send) ([]byte, int) {
	b, start := begin(b, KindSend, 7+traceFields(f.Trace))
	b = appendUint(b, f.Seq)
	b = appendStr(b, f.To)
	b = appendStr(b, f.From)
	b = appendUint(b, uint64(f.TTL))
	return appendUint(b, uint64(f.Flags)), start
}

// Deliver is a message on its way from a node to the session that holds To. NotHere has the same
// fields and goes back. The byte fields are views into the frame.
type Deliver struct {
	Token   []byte // opaque; the receiver echoes it in ack. Empty: nothing to answer
	To      []byte
	From    []byte
	TTL     uint32 // remaining milliseconds; 0 stands for none
	Flags   uint8
	Epoch   uint64 // of the binding that the node used
	Payload []byte
	Trace   []byte // TraceLen bytes, or empty
}

// DecodeDeliver reads the body of a deliver frame into f. It allocates nothing. Its error is an
// *Error.
func DecodeDeliver(body []byte, f *Deliver) error {
	if plainDeliver(body, f) {
		return nil
	}
	return decodeDeliver(body, KindDeliver, f)
}

// DecodeNotHere reads the body of a not_here frame, a deliver that its receiver returns.
func DecodeNotHere(body []byte, f *Deliver) error { return decodeDeliver(body, KindNotHere, f) }

func decodeDeliver(body []byte, kind Kind, f *Deliver) error {
	r, left := open(body, kind, 8)
	f.Token = r.bin("token", MaxToken)
	f.To = r.id("to")
	f.From = r.str("from", MaxID)
	f.TTL = uint32(r.uint("ttl", maxTTL))
	f.Flags = uint8(r.uint("flags", math.MaxUint8))
	f.Epoch = r.uint("epoch", maxEpoch)
	f.Payload = r.bin("payload", anyLen)
	f.Trace, left = r.trace(left)
	return r.close(left)
}

// AppendDeliver appends the whole frame, length prefix included. The payload is copied once, here.
func AppendDeliver(b []byte, f *Deliver) []byte { return appendDeliver(b, KindDeliver, f) }

// FeatureShortNotHere in hello and welcome says that a client may return a message without its
// content: token, to and epoch stand in not_here and not_here_many, and everything else is empty or
// 0, see Deliver.Short. The send ends then; it cannot go elsewhere.
const FeatureShortNotHere = 1 << 1

// Short returns the fields of a not_here without content.
func (f *Deliver) Short() Deliver { return Deliver{Token: f.Token, To: f.To, Epoch: f.Epoch} }

// AppendNotHere appends a not_here frame.
func AppendNotHere(b []byte, f *Deliver) []byte { return appendDeliver(b, KindNotHere, f) }

func appendDeliver(b []byte, kind Kind, f *Deliver) []byte {
	b, start := begin(b, kind, 8+traceFields(f.Trace))
	b = appendBin(b, f.Token)
	b = appendStr(b, f.To)
	b = appendStr(b, f.From)
	b = appendUint32(b, f.TTL)
	b = appendUint(b, uint64(f.Flags))
	b = appendEpoch(b, f.Epoch)
	return end(appendTrace(appendBin(b, f.Payload), f.Trace), start)
}

// PatchDeliverTTL overwrites the remaining milliseconds in the body of a frame that AppendDeliver
// or AppendForward made, after the message has waited. f must have been decoded from that very
// body.
func PatchDeliverTTL(body []byte, f *Deliver, ttl uint32) {
	at := 2 + 2 + len(f.Token) + strSize(len(f.To)) + strSize(len(f.From))
	patchUint32(body[at:], ttl)
}

// strSize is what appendStr takes for a string of at most MaxID bytes.
func strSize(n int) int {
	if n < 32 {
		return 1 + n
	}
	return 2 + n
}

// DeliverSize bounds the bytes that AppendDeliver will append, for IDs and a token within their
// limits.
func DeliverSize(f *Deliver) int {
	return PrefixLen + 2 + 2 + len(f.Token) + 2 + len(f.To) + 2 + len(f.From) + 5 + 2 + 9 + 5 + len(f.Payload) + traceSize(f.Trace)
}

// Ack is a receiver's answer to a deliver that carried a token.
type Ack struct {
	Token  []byte
	Code   Code   // CodeAcked or CodeRejected
	Reason []byte // with CodeRejected: why; at most MaxReason bytes
	Reply  []byte // opaque; goes back to the sender with the outcome
}

// DecodeAck reads the body of an ack frame into f. It allocates nothing. Its error is an *Error.
func DecodeAck(body []byte, f *Ack) error {
	if plainAck(body, f) {
		return nil
	}
	return decodeAck(body, f)
}

func decodeAck(body []byte, f *Ack) error {
	r, left := open(body, KindAck, 5)
	f.Token = r.bin("token", MaxToken)
	at := r.off
	f.Code = Code(r.uint("code", maxCode))
	if f.Code != CodeAcked && f.Code != CodeRejected && r.fault == nil {
		r.failAt(at, FaultBadValue, "code", "the code of an ack is acked or rejected, not "+f.Code.String())
	}
	f.Reason = r.str("reason", MaxReason)
	f.Reply = r.bin("reply", anyLen)
	return r.close(left)
}

// AppendAck appends the whole frame, length prefix included; a reason over MaxReason bytes is cut.
func AppendAck(b []byte, f *Ack) []byte {
	b, start := appendAckHead(b, f)
	return end(appendBin(b, f.Reply), start)
}

func appendAckHead(b []byte, f *Ack) ([]byte, int) {
	b, start := begin(b, KindAck, 5)
	b = appendBin(b, f.Token)
	b = appendUint(b, uint64(f.Code))
	return appendReason(b, f.Reason), start
}

// Outcome is how a send ended.
type Outcome struct {
	Seq    uint64
	Code   Code
	Reason []byte // for people; may be empty
	Reply  []byte // what the receiver's ack carried
}

// DecodeOutcome reads the body of an outcome frame into f. It allocates nothing. Its error is an
// *Error.
func DecodeOutcome(body []byte, f *Outcome) error {
	r, left := open(body, KindOutcome, 5)
	f.Seq = r.uint("seq", maxUint)
	f.Code = Code(r.uint("code", maxCode))
	f.Reason = r.str("reason", MaxReason)
	f.Reply = r.bin("reply", anyLen)
	return r.close(left)
}

// AppendOutcome appends the whole frame, length prefix included; a reason over MaxReason bytes is
// cut.
func AppendOutcome(b []byte, f *Outcome) []byte {
	b, start := begin(b, KindOutcome, 5)
	b = appendUint(b, f.Seq)
	b = appendCode(b, f.Code)
	b = appendReason(b, f.Reason)
	return end(appendBin(b, f.Reply), start)
}
