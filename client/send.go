package client

import (
	"context"
	"errors"
	"time"

	"distmsg/codec"
)

// Message is what is sent. The session keeps none of it after Send, SendAsync or Post has returned.
type Message struct {
	To      string // the receiver's ID
	From    string // an ID this session holds; "" only where the node allows that
	Payload []byte // opaque; at most what the node announces (1 MiB by default)
	// Value, if not nil, is encoded with msgpack in Payload's place, on the goroutine of the
	// caller.
	Value any
	// TTL is how long the message may take. If the context ends earlier, that counts. Without both, a node's
	// default holds (5 s) for messages with an outcome, and posts may take any time.
	TTL time.Duration
}

// Reply is what the receiver answered.
type Reply struct {
	Payload []byte // the caller's; nil if the receiver only accepted
}

// Send sends a message and waits for its outcome: nil (acked, perhaps with a reply) or an *Error. It ends
// with exactly one outcome, at the latest about a second after its deadline, which is the context's and
// the TTL's.
//
// If the session's window is full, or it is not attached to a node, Send waits, and ends expired or
// unreachable if that takes too long. When ctx ends before the outcome is known, Send returns at
// once with timeout, wrapping the context's error.
//
// An error that is not an *Error means that nothing was sent: ErrClosed, the context's error if ctx
// had ended before the call, or a Value that cannot be encoded. If ctx ended the call,
// errors.Is(err, context.DeadlineExceeded) or errors.Is(err, context.Canceled) is true.
// It may be called from any goroutine. Messages that one goroutine sends to one ID, each after the outcome of the one
// before, keep their order; see Spread or mesh for SendAsync and Post.
func (s *Session) Send(ctx context.Context, m Message) (Reply, error) {
	w := s.calls.Get().(*call)
	w.since = s.stamp()
	c, seq, err := s.submit(ctx, outgoing{Message: m, call: w})
	if err != nil {
		err = s.refused(err, 1, w.since)
		s.calls.Put(w)
		return Reply{}, err
	}
	var r result
	select {
	case r = <-w.result:
	case <-ctx.Done():
		if c.abandon(seq, w) {
			r.err = &Error{Code: codec.CodeTimeout, Reason: "gave up waiting for the outcome", cause: ctx.Err()}
			s.ended(r.err.Code, w.since)
		} else {
			r = <-w.result
		}
	}
	s.calls.Put(w)
	if r.err != nil {
		return Reply{}, r.err
	}
	return r.reply, nil
}

// SendAsync sends a message and returns as soon as it is in the outgoing buffer. done is called exactly
// once, with what Send would have returned. ctx bounds the waiting for room in the window and for a node,
// and its deadline counts as for Send; ending it later changes nothing.
//
// Callbacks begin one after the other, in the order of the outcomes, on a goroutine of the
// session's own, or on the caller's if the message could not be sent. A callback may block and may
// call every method of the session except Close. If one has not returned after a second or two, the
// session logs it, counts it in Stats.Stuck, and begins the next ones. If Config.Workers callbacks
// are stuck, the rest waits for them. SendAsync waits while Config.MaxInFlight callbacks have yet
// to begin, unless a callback calls it. It may be called from any goroutine.
func (s *Session) SendAsync(ctx context.Context, m Message, done func(Reply, error)) {
	w := s.calls.Get().(*call)
	w.done, w.since = done, s.stamp()
	if _, _, err := s.submit(ctx, outgoing{Message: m, call: w, async: true}); err != nil {
		err = s.refused(err, 1, w.since)
		w.done = nil
		s.calls.Put(w)
		s.answerHere(ending{done: done, err: err})
	}
}

// Post sends a message without an outcome, and returns as soon as it is in the outgoing buffer. It waits
// while the node's byte credit is used up and while the session is not attached; an error says that
// nothing was sent. What happens to the message is told only by Config.OnPostFailed, under the id that
// Post returns. It may be called from any goroutine.
func (s *Session) Post(ctx context.Context, m Message) (id uint64, err error) {
	_, seq, err := s.submit(ctx, outgoing{Message: m, seq: s.posts.Add(1)<<1 | seqPost})
	return seq >> 1, err
}

// postID returns the number that the sender of a post knows it by; ok is false if seq is no post's.
func postID(seq uint64) (id uint64, ok bool) {
	if seq&seqMany != 0 {
		return seq &^ (seqMany | seqManyPost), seq&seqManyPost != 0
	}
	return seq >> 1, seq&seqPost != 0
}

// refused counts the outcome of n sends that never reached a buffer.
func (s *Session) refused(err error, n int, since time.Time) error {
	if e, ok := errors.AsType[*Error](err); ok {
		for range n {
			s.ended(e.Code, since)
		}
	}
	return err
}

// endCall hands an outcome to who waits for it.
func (s *Session) endCall(w *call, reply Reply, err *Error) {
	if err != nil && w.byCtx {
		err.blame()
	}
	s.ended(codeOf(err), w.since)
	if w.done == nil {
		w.result <- result{reply, err}
		return
	}
	e := ending{done: w.done, reply: reply, places: 1}
	if err != nil {
		e.err = err
	}
	w.done = nil
	s.calls.Put(w)
	s.cb.answers.Push(e)
}

// codeOf is the outcome that err stands for.
func codeOf(err *Error) Code {
	if err == nil {
		return codec.CodeAcked
	}
	return err.Code
}

// failure is a post that will not arrive.
type failure struct {
	id  uint64
	err *Error
}

// postsFailed reports posts that will not arrive. Those of one multicast are reported all or not at all, as long as a node tells
// them at once.
func (s *Session) postsFailed(failed []failure) {
	s.count.postsFailed.Add(uint64(len(failed)))
	notify(s, s.cfg.OnPostFailed != nil, s.cb.failures, failed...)
}
