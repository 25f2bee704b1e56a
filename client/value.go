package client

import (
	"context"
	"fmt"

	"distmsg/codec"
)

// SendValue sends v, encoded with msgpack, and decodes the receiver's reply into an R; m says from, to
// and TTL. If the receiver accepted without a reply, R is zero. Outcomes are those of Session.Send; a
// reply that is not an R gives another error, although the message was acked.
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

// HandleValue makes a Handler of a function that takes decoded messages. A payload that is not a T
// is rejected with the reason.
func HandleValue[T any](fn func(ctx context.Context, d *Delivery, v T)) Handler {
	return func(ctx context.Context, d *Delivery) {
		var v T
		if err := codec.DecodeValue(d.Payload, &v); err != nil {
			_ = d.Reject("payload: " + err.Error())
			return
		}
		fn(ctx, d, v)
	}
}
