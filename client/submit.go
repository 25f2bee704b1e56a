package client

import (
	"context"
	"fmt"
	"math"
	"time"

	"distmsg/codec"
)

// outgoing is a message on its way into a connection's buffer.
type outgoing struct {
	Message
	call     *call     // nil: a post
	seq      uint64    // of a post
	deadline time.Time // zero: none
	held     int       // bytes of the budget it holds
}

// submit puts m into a connection's buffer. It waits for its budget (the session's window, or for a
// post the connection's credit) and for a connection.
func (s *Session) submit(ctx context.Context, m Message, w *call) (*conn, uint64, error) {
	o := outgoing{Message: m, call: w, deadline: s.deadline(ctx, m.TTL, w != nil)}
	if w == nil {
		o.seq = s.posts.Add(1)<<1 | seqPost
	}
	if err := o.check(); err != nil {
		return nil, 0, err
	}
	if s.closed() {
		return nil, 0, ErrClosed
	}
	for {
		c := s.pick(m.From, m.To)
		if c == nil {
			if err := s.waitAttached(ctx, &o); err != nil {
				return nil, 0, err
			}
			continue
		}
		seq, err := s.submitTo(ctx, c, &o)
		if err != errConnClosed {
			return c, seq, err
		}
		s.drop(c) // it may not have come to that itself yet: do not spin
	}
}

// submitTo puts o into c's buffer, or returns errConnClosed. It holds budget of its own kind only
// while it runs or after success.
func (s *Session) submitTo(ctx context.Context, c *conn, o *outgoing) (seq uint64, err error) {
	b := &s.window
	if o.call == nil {
		b = &c.credit
	}
	for need := o.estimate(); ; {
		o.held = o.clamp(s, need)
		if o.call == nil && uint64(o.held) > c.limits.Credit {
			return 0, tooLarge(o.held, c.limits.Credit)
		}
		if !b.try(o.held) {
			if err := s.acquire(ctx, b, o); err != nil {
				return 0, err
			}
		}
		seq, need, err = c.put(b, o)
		if err == nil && need == 0 {
			return seq, nil
		}
		b.release(o.held)
		if err != nil {
			return 0, err
		}
	}
}

// put encodes o into the buffer. need is not 0 if it takes more of the budget than is held and left:
// then nothing was done.
func (c *conn) put(b *budget, o *outgoing) (seq uint64, need int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || c.ended {
		return 0, 0, errConnClosed
	}
	ttl, err := o.ttl()
	if err != nil {
		return 0, 0, err
	}
	seq = o.seq
	if o.call != nil {
		seq = c.calls.add(o.call, c.guard(o.deadline), o.held)
	}
	out, err := c.encode(o, seq, ttl)
	if size := len(out) - len(c.out); err == nil {
		need = o.charge(c, b, seq, size)
	}
	if err != nil || need > 0 {
		if o.call != nil {
			c.calls.end(seq)
		}
		return 0, need, err
	}
	c.commit(out)
	if o.call != nil {
		c.s.count.sent.Add(1)
	} else {
		c.s.count.posted.Add(1)
	}
	return seq, 0, nil
}

// charge corrects what o holds of the budget to the frame's true size: upwards in any case, downwards
// for a post, because credit must be counted to the byte. It returns the size if there is no room.
func (o *outgoing) charge(c *conn, b *budget, seq uint64, size int) (need int) {
	want := o.clamp(c.s, size)
	if want == o.held || want < o.held && o.call != nil {
		return 0
	}
	if !b.grow(want - o.held) {
		return size
	}
	o.held = want
	if o.call != nil {
		c.calls.at(seq).cost = want
	}
	return 0
}

// encode appends o's frame to the buffer and returns the longer buffer. It needs c.mu.
func (c *conn) encode(o *outgoing, seq uint64, ttl uint32) ([]byte, error) {
	f := codec.Send{
		Seq:     seq,
		To:      c.to[:copy(c.to[:], o.To)],
		From:    c.from[:copy(c.from[:], o.From)],
		TTL:     ttl,
		Flags:   c.s.flags(o.call != nil),
		Payload: o.Payload,
	}
	limit := int(c.limits.MaxPayload)
	if o.Value == nil {
		if len(o.Payload) > limit {
			return c.out, tooLarge(len(o.Payload), c.limits.MaxPayload)
		}
		return codec.AppendSend(c.out, &f), nil
	}
	out, err := codec.AppendSendValue(c.out, &f, o.Value)
	if err != nil {
		return out, fmt.Errorf("client: %w", err)
	}
	if frame := out[len(c.out):]; len(frame) > limit {
		if err := codec.DecodeSend(frame[codec.PrefixLen:], &f); err != nil {
			return out, fmt.Errorf("client: %w", err)
		}
		if len(f.Payload) > limit {
			return out, tooLarge(len(f.Payload), c.limits.MaxPayload)
		}
	}
	return out, nil
}

func (s *Session) flags(ack bool) uint8 {
	switch {
	case ack:
		return codec.FlagAck
	case s.cfg.OnPostFailed != nil:
		return codec.FlagReport
	}
	return 0
}

// abandon reports whether w's outcome was still open; then it is nobody's any more.
func (c *conn) abandon(seq uint64, w *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.abandon(seq, w)
}

// guard returns the deadline after which the node must have answered, on the session's clock.
func (c *conn) guard(deadline time.Time) int64 {
	return min(c.s.at(deadline), c.s.now()+int64(min(c.limits.MaxTTL, math.MaxUint32)))
}

func (o *outgoing) check() error {
	if !goodID(o.To) {
		return badID(o.To)
	}
	if len(o.From) > codec.MaxID {
		return badID(o.From)
	}
	return nil
}

func badID(id string) *Error {
	return &Error{Code: codec.CodeBadID, Reason: fmt.Sprintf("an ID has 1 to %d bytes, not %d", codec.MaxID, len(id))}
}

// estimate guesses the frame's size: for a send at its largest, so that it seldom needs more; for a post
// at its smallest, so that the last bytes of the credit can be used. A Value's size shows only when it is
// encoded.
func (o *outgoing) estimate() int {
	const least, most = 13, 48 // prefix, array, kind, seq, ttl, flags, and the heads of three strings
	n := len(o.To) + len(o.From) + len(o.Payload)
	if o.call == nil {
		return least + n
	}
	return most + n
}

// clamp lets a message that is larger than the whole window pass when nothing else is in flight.
func (o *outgoing) clamp(s *Session, n int) int {
	if o.call == nil {
		return n
	}
	return min(n, s.cfg.MaxInFlightBytes)
}

// ttl returns the remaining milliseconds, rounded up; 0 for none.
func (o *outgoing) ttl() (uint32, error) {
	if o.deadline.IsZero() {
		return 0, nil
	}
	left := time.Until(o.deadline)
	if left <= 0 {
		return 0, &Error{Code: codec.CodeExpired, Reason: "not written in time", cause: context.DeadlineExceeded}
	}
	return uint32(min((left+time.Millisecond-1)/time.Millisecond, math.MaxUint32)), nil
}

// deadline returns when a message's time is over: the context's deadline or the TTL's, whichever comes first.
func (s *Session) deadline(ctx context.Context, ttl time.Duration, ack bool) time.Time {
	deadline, ok := ctx.Deadline()
	if ttl == 0 && !ok && ack {
		ttl = time.Duration(s.defaultTTL.Load()) * time.Millisecond
	}
	if ttl == 0 {
		return deadline
	}
	if end := time.Now().Add(ttl); !ok || end.Before(deadline) {
		return end
	}
	return deadline
}

// acquire waits for o's budget.
func (s *Session) acquire(ctx context.Context, b *budget, o *outgoing) error {
	ctx, cancel := o.context(ctx)
	defer cancel()
	err := b.acquire(ctx, o.held)
	if err == nil || err == ErrClosed || err == errConnClosed {
		return err
	}
	return &Error{Code: codec.CodeExpired, Reason: "waited for room in the window", cause: err}
}

// waitAttached waits for a connection.
func (s *Session) waitAttached(ctx context.Context, o *outgoing) error {
	ctx, cancel := o.context(ctx)
	defer cancel()
	_, err := s.attached(ctx)
	if err == nil || err == ErrClosed {
		return err
	}
	return &Error{Code: codec.CodeUnreachable, Reason: "not attached to a node", cause: err}
}

// context ends with o's deadline too.
func (o *outgoing) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.deadline.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, o.deadline)
}
