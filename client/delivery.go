package client

import (
	"context"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"distmsg/codec"
)

// Handler receives a message. The session calls it on a goroutine of its own: one message at a time
// for one ID, in the order they came; many IDs at once. It may take its time and may call every method of
// the session but Close.
//
// A handler that returns without having answered has accepted the message; one that panics has rejected
// it. ctx ends when the session is closed and not drained in time. Neither d nor its Payload may be used
// after the handler returned.
type Handler func(ctx context.Context, d *Delivery)

// Delivery is a message that arrived. It belongs to its handler and must be used by one goroutine at
// a time.
type Delivery struct {
	To      string // an ID of this session
	From    string // "" where the node allows that
	Payload []byte // a view: valid until the handler returns, not to be written to

	deadline time.Time
	answer   Responder
}

func (d *Delivery) set(j *job) {
	f := &j.deliver
	d.To, d.From, d.Payload = j.binding.id, j.lane.from, f.Payload
	if f.TTL != 0 {
		d.deadline = j.conn.s.start.Add(time.Duration(j.since+int64(f.TTL)) * time.Millisecond)
	}
	d.answer.set(j.conn, f)
}

// Deadline returns when the sender stops waiting; ok is false if it never does, as with a Post without a TTL.
func (d *Delivery) Deadline() (t time.Time, ok bool) { return d.deadline, !d.deadline.IsZero() }

// WantsAck reports whether the sender waits for the answer. Without, the answering methods have no effect.
func (d *Delivery) WantsAck() bool { return d.answer.wants }

// Accept answers acked with no payload, as returning from the handler does.
func (d *Delivery) Accept() error { return d.answer.Accept() }

// Reply answers acked with a payload for the sender; see Responder.Reply.
func (d *Delivery) Reply(payload []byte) error { return d.answer.Reply(payload) }

// ReplyValue answers acked with a value in msgpack for the sender; see Responder.ReplyValue.
func (d *Delivery) ReplyValue(v any) error { return d.answer.ReplyValue(v) }

// Reject answers rejected; see Responder.Reject.
func (d *Delivery) Reject(reason string) error { return d.answer.Reject(reason) }

// Defer takes the answer out of the handler's hands: the message is not accepted when the handler returns,
// but when the Responder says so. If it never does, the sender hears timeout.
func (d *Delivery) Defer() *Responder {
	r := new(Responder)
	r.copyFrom(&d.answer)
	if d.answer.answered.Swap(true) {
		r.answered.Store(true)
	}
	return r
}

// Responder answers one delivery, once. Its methods may be called from any goroutine, at any time: a
// late answer is ignored by the node. They return ErrAnswered if the delivery was answered before,
// ErrTooLarge for a payload over the node's limit (the delivery can then still be answered), and
// ErrUnreachable if the connection the message came by is gone: its sender has been told so.
type Responder struct {
	conn     *conn
	token    [codec.MaxToken]byte
	tokenLen uint8
	wants    bool
	answered atomic.Bool
}

func (r *Responder) set(c *conn, f *codec.Deliver) {
	r.conn, r.wants = c, f.Flags&codec.FlagAck != 0
	r.tokenLen = uint8(copy(r.token[:], f.Token))
}

func (r *Responder) copyFrom(o *Responder) {
	r.conn, r.token, r.tokenLen, r.wants = o.conn, o.token, o.tokenLen, o.wants
}

// Accept answers acked with no payload.
func (r *Responder) Accept() error { return r.send(&codec.Ack{Code: codec.CodeAcked}, nil) }

// Reply answers acked with a payload, which is copied.
func (r *Responder) Reply(payload []byte) error {
	return r.send(&codec.Ack{Code: codec.CodeAcked, Reply: payload}, nil)
}

// ReplyValue answers acked with v, encoded with msgpack straight into the outgoing buffer. An error
// of the encoding leaves the delivery unanswered.
func (r *Responder) ReplyValue(v any) error {
	return r.send(&codec.Ack{Code: codec.CodeAcked}, &v)
}

// Reject answers rejected. The reason goes to the sender's Error; what is over 255 bytes is cut off.
func (r *Responder) Reject(reason string) error {
	return r.send(&codec.Ack{Code: codec.CodeRejected, Reason: cutReason(reason)}, nil)
}

func (r *Responder) send(f *codec.Ack, value *any) error {
	if r.answered.Swap(true) {
		return ErrAnswered
	}
	if !r.wants {
		return nil
	}
	f.Token = r.token[:r.tokenLen]
	retry, err := r.conn.ack(f, value)
	if retry {
		r.answered.Store(false)
	} else {
		r.conn.owed.Add(-1)
	}
	return err
}

// cutReason shortens s to what a frame may carry, at the border of a character.
func cutReason(s string) []byte {
	if end := codec.MaxReason; len(s) > end {
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return []byte(s)
}
