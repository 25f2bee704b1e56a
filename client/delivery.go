package client

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"distmsg/codec"
)

// Handler receives a message. The session calls it on a goroutine of its own: for one message of an
// ID at a time, in the order of arrival, and for many IDs at once. It may take as long as it needs,
// and may call every method of the session except Close.
//
// A handler that returns without an answer has accepted the message. A handler that panics or ends
// its goroutine (runtime.Goexit, testing.T.Fatal) has rejected it, and the log says where. If a
// message's deadline passes while it waits for its handler, it is not handled, and Stats.Expired
// counts it.
//
// ctx ends at the message's deadline, and when the session is closed but not drained in time. The
// handler's return does not end it. Once the handler has returned, d is over: methods that answer
// return ErrAnswered, and Payload is nil. Do not use slices of d.Payload after that; copy what you
// keep.
type Handler func(ctx context.Context, d *Delivery)

// Delivery is a message that arrived. It belongs to its handler and must be used by one goroutine
// at a time.
type Delivery struct {
	To      string // an ID of this session
	From    string // "" where the node allows that
	Payload []byte // a view: valid until the handler returns, not to be written to
	// Trace is the sender's Message.Trace, or "". If sessions make spans (Config.OnSpan), its
	// parent is not the sender's: it is the span of the send, or of this handler if this session
	// makes spans. The handler owns the string.
	Trace string

	deadline int64 // on the session's clock; 0: none
	ending   atomic.Pointer[endingContext]
	answer   Responder
}

// deliveries allocates deliveries, many at a time. It never reuses one, because a handler's
// goroutines may still hold it.
type deliveries struct{ left []Delivery }

func (a *deliveries) next() (d *Delivery) {
	if len(a.left) == 0 {
		a.left = make([]Delivery, 32)
	}
	d, a.left = &a.left[0], a.left[1:]
	return d
}

func (d *Delivery) set(j *job) {
	f := &j.deliver
	d.To, d.From, d.Payload = j.binding.id, j.lane.from, f.Payload
	d.Trace = codec.FormatTrace(f.Trace)
	if f.TTL != 0 {
		d.deadline = j.since + int64(f.TTL)
	}
	d.answer.set(j.conn, f)
}

// Deadline returns when the sender stops waiting; ok is false if it never does, as with a Post
// without a TTL.
func (d *Delivery) Deadline() (t time.Time, ok bool) {
	if d.deadline == 0 {
		return t, false
	}
	return d.answer.conn.s.start.Add(time.Duration(d.deadline) * time.Millisecond), true
}

// Decode decodes the payload, msgpack, into v, a pointer. v may be used after the handler has
// returned: it shares no memory with the payload. Call Decode before the handler returns.
func (d *Delivery) Decode(v any) error {
	if err := codec.DecodeValue(d.Payload, v); err != nil {
		return fmt.Errorf("client: payload: %w", err)
	}
	return nil
}

// WantsAck reports whether the sender waits for the answer. If not, the answering methods have no
// effect.
func (d *Delivery) WantsAck() bool { return d.answer.wants }

// Accept answers acked with no payload, as returning from the handler does.
func (d *Delivery) Accept() error { return d.answer.Accept() }

// Reply answers acked with a payload for the sender; see Responder.Reply.
func (d *Delivery) Reply(payload []byte) error { return d.answer.Reply(payload) }

// ReplyValue answers acked with a value in msgpack for the sender; see Responder.ReplyValue.
func (d *Delivery) ReplyValue(v any) error { return d.answer.ReplyValue(v) }

// Reject answers rejected; see Responder.Reject.
func (d *Delivery) Reject(reason string) error { return d.answer.Reject(reason) }

// Defer separates the answer from the handler: the message is accepted when the Responder says so,
// not when the handler returns. If the Responder never answers, the sender hears timeout.
func (d *Delivery) Defer() *Responder {
	r := new(Responder)
	r.copyFrom(&d.answer)
	if !d.answer.answered.CompareAndSwap(notAnswered, leftToResponder) {
		r.answered.Store(d.answer.answered.Load())
	}
	return r
}

// Responder answers one delivery, once. Any goroutine may call its methods, at any time. The node
// ignores a late answer. The methods return ErrAnswered if the delivery was answered before (those
// of Delivery also after its handler has returned). They return ErrTooLarge for a payload over the
// node's limit; the delivery can then still be answered. They return ErrUnreachable if the
// connection that the message came on has closed; its sender has then already heard an outcome.
type Responder struct {
	conn     *conn
	token    [codec.MaxToken]byte
	tokenLen uint8
	wants    bool
	answered atomic.Uint32 // the code of the answer, or one of the two below
}

const (
	notAnswered     = 0
	leftToResponder = 1 << 8 // another Responder answers this delivery
)

func (r *Responder) set(c *conn, f *codec.Deliver) {
	r.conn, r.wants = c, f.Flags&codec.FlagAck != 0
	r.tokenLen = uint8(copy(r.token[:], f.Token))
}

func (r *Responder) copyFrom(o *Responder) {
	r.conn, r.token, r.tokenLen, r.wants = o.conn, o.token, o.tokenLen, o.wants
}

// Accept answers acked with no payload.
func (r *Responder) Accept() error { return r.send(&codec.Ack{Code: codec.CodeAcked}) }

// Reply answers acked with a payload, which is copied.
func (r *Responder) Reply(payload []byte) error {
	return r.send(&codec.Ack{Code: codec.CodeAcked, Reply: payload})
}

// ReplyValue answers acked with v, encoded with msgpack. If encoding v fails or panics, the
// delivery stays unanswered.
func (r *Responder) ReplyValue(v any) error {
	if r.answered.Load() != notAnswered || !r.wants {
		return r.Reply(nil)
	}
	value, err := encodeValue(v)
	if err != nil {
		return err
	}
	defer value.free()
	return r.Reply(value.b)
}

// Reject answers rejected. The reason goes to the sender's Error. It is cut to 255 bytes.
func (r *Responder) Reject(reason string) error {
	return r.send(&codec.Ack{Code: codec.CodeRejected, Reason: cutReason(reason)})
}

func (r *Responder) send(f *codec.Ack) error {
	if !r.answered.CompareAndSwap(notAnswered, uint32(f.Code)) {
		return ErrAnswered
	}
	if !r.wants {
		return nil
	}
	f.Token = r.token[:r.tokenLen]
	retry, err := r.conn.ack(f)
	if retry {
		r.answered.Store(notAnswered)
	} else {
		r.conn.owed.Add(-1)
	}
	return err
}

// cutReason shortens s to what a frame may carry, at the boundary of a character.
func cutReason(s string) []byte {
	if end := codec.MaxReason; len(s) > end {
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return []byte(s)
}
