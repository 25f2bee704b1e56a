package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"distmsg/codec"
	"distmsg/internal/callback"
)

// SendValue sends v, encoded with msgpack, and decodes the receiver's reply into an R. m gives
// From, To and TTL. If the receiver accepted without a reply, R is zero. The outcomes are those of
// Session.Send. If the reply is not an R, SendValue returns another error although the message was
// acked.
func SendValue[R any](ctx context.Context, s *Session, m Message, v any) (R, error) {
	m.Value = v
	if v == nil {
		m.Payload = []byte{msgpackNil}
	}
	var out R
	reply, err := s.Send(ctx, m)
	if err == nil && len(reply.Payload) > 0 {
		err = reply.Decode(&out)
	}
	return out, err
}

// msgpackNil is the encoding of nil, which Message.Value cannot hold.
const msgpackNil = 0xc0

// Decode decodes a reply that the receiver made with ReplyValue into v, a pointer.
func (r Reply) Decode(v any) error {
	if err := codec.DecodeValue(r.Payload, v); err != nil {
		return fmt.Errorf("client: reply: %w", err)
	}
	return nil
}

// HandleValue returns a Handler that decodes messages for fn. It rejects a payload that is not a T,
// with the reason.
func HandleValue[T any](fn func(ctx context.Context, d *Delivery, v T)) Handler {
	return func(ctx context.Context, d *Delivery) {
		var v T
		if err := codec.DecodeValue(d.Payload, &v); err != nil {
			_ = d.Reject(d.undecoded(err))
			return
		}
		fn(ctx, d, v)
	}
}

// undecoded returns the reason for the sender of a payload that could not be decoded. It omits the
// value of a decoder's panic, which goes to the log.
func (d *Delivery) undecoded(err error) string {
	if p, ok := errors.AsType[*codec.PanicError](err); ok {
		d.answer.conn.s.failed(&callback.Failure{Panic: p.Panic, Stack: p.Stack}, "the decoder of "+p.Into, "to", d.To, "from", d.From)
		return "payload: its decoder panicked"
	}
	return "payload: " + err.Error()
}

// encoded is a value in msgpack. It is encoded before any lock is taken, because the encoder may be
// the application's, and then copied to the outgoing buffer.
type encoded struct{ b []byte }

var encodedPool = sync.Pool{New: func() any { return new(encoded) }}

// encodeValue encodes v. The caller frees the result when it has copied it. A panic of an encoder
// reaches the caller.
func encodeValue(v any) (*encoded, error) {
	e := encodedPool.Get().(*encoded)
	b, err := codec.AppendValue(e.b[:0], v)
	if err != nil {
		return nil, fmt.Errorf("client: payload: %w", err)
	}
	e.b = b
	return e, nil
}

func (e *encoded) free() {
	if cap(e.b) <= keepFrame {
		encodedPool.Put(e)
	}
}
