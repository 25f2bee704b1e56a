package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"distmsg/codec"
	"distmsg/internal/callback"
)

// What an in-process session sends. Where a client's SDK waits for room in its window and for credit, these calls wait for room in
// what the loop has yet to take, and for outcomes.

// The outcomes as errors.Is targets: errors.Is(err, ErrNoRoute) holds for every *SendError with that code, for a *BindError
// with it, and for errors that wrap one.
var (
	ErrRejected            = &SendError{Code: codec.CodeRejected}
	ErrNoRoute             = &SendError{Code: codec.CodeNoRoute}
	ErrUnreachable         = &SendError{Code: codec.CodeUnreachable}
	ErrOverflow            = &SendError{Code: codec.CodeOverflow}
	ErrExpired             = &SendError{Code: codec.CodeExpired}
	ErrRegistryUnavailable = &SendError{Code: codec.CodeRegistryUnavailable}
	ErrDraining            = &SendError{Code: codec.CodeDraining}
	ErrDenied              = &SendError{Code: codec.CodeDenied}
	ErrTooLarge            = &SendError{Code: codec.CodeTooLarge}
	ErrTimeout             = &SendError{Code: codec.CodeTimeout}
	ErrLost                = &SendError{Code: codec.CodeLost}

	ErrSuperseded = &SendError{Code: codec.CodeSuperseded} // of a bind: a newer binding of the ID stands
	ErrBadID      = &SendError{Code: codec.CodeBadID}      // of a bind: the ID is empty or has more than 255 bytes
)

// ErrSessionOver is what every call of an in-process session returns once it has ended. Nothing was sent.
var ErrSessionOver = errors.New("engine: the session is over")

// SendError is the outcome of a message that was not acked.
type SendError struct {
	Code   codec.Code
	Reason string // may be empty

	cause error
}

// Error names the outcome and the reason.
func (e *SendError) Error() string {
	if e.Reason == "" {
		return "engine: " + e.Code.String()
	}
	return "engine: " + e.Code.String() + ": " + e.Reason
}

// Delivered says whether the message reached its receiver: yes, no or unknown.
func (e *SendError) Delivered() codec.Delivered { return e.Code.Delivered() }

// SafeToRetry reports whether sending again cannot deliver twice. See [codec.Code.SafeToRetry].
func (e *SendError) SafeToRetry() bool { return e.Code.SafeToRetry() }

// Temporary reports whether the cause may pass within seconds and by itself, so that sending again
// after a pause may succeed. Send again if SafeToRetry and Temporary are both true.
func (e *SendError) Temporary() bool { return e.Code.Temporary() }

// Is reports whether target is a *SendError with the same code.
func (e *SendError) Is(target error) bool {
	t, ok := target.(*SendError)
	return ok && t.Code == e.Code
}

// Unwrap returns the context's error if that ended the call; nil if the node decided.
func (e *SendError) Unwrap() error { return e.cause }

// BindError says why one ID was not bound.
type BindError struct {
	ID     string
	Code   codec.Code
	Reason string // the hook's words, for people; empty as a rule
}

// Error names the ID and the reason.
func (e *BindError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("engine: bind %q: %s", e.ID, e.Code)
	}
	return fmt.Sprintf("engine: bind %q: %s: %s", e.ID, e.Code, e.Reason)
}

// Is reports whether target is a *SendError with the same code.
func (e *BindError) Is(target error) bool {
	t, ok := target.(*SendError)
	return ok && t.Code == e.Code
}

// call is a request or send that waits for its answer.
type call struct {
	ch    chan<- answer       // who waits; nil: nobody, or not any more
	done  func([]byte, error) // of SendAsync
	late  func(answer)        // what to do with an answer that nobody waits for; called with mu held
	send  bool
	byCtx bool // its deadline is its context's
}

// outcome is one that a callback is to be told.
type outcome struct {
	done func([]byte, error)
	answer
}

// result is what the sender is told.
func (a *answer) result() ([]byte, error) {
	if a.code != codec.CodeAcked {
		e := &SendError{Code: a.code, Reason: a.reason}
		if a.byCtx && (a.code == codec.CodeTimeout || a.code == codec.CodeExpired) {
			e.cause = context.DeadlineExceeded
		}
		return nil, e
	}
	return a.reply, nil
}

// Send sends a message and waits for its outcome: the receiver's reply, which is the caller's, or a *SendError. The
// deadline of ctx, if any, is the message's; without one it is Config.DefaultTTL. payload is copied.
//
// While Config.MaxInFlight sends of this session wait, or the event loop has yet to take as much as Config.MaxPending, Send waits
// for room, and ends expired if ctx ends first. If ctx ends before the outcome is known, Send returns timeout. Both wrap ctx's error.
// An error that is no *SendError says that nothing was sent: ErrSessionOver, ctx's error if ctx had
// ended before the call, or an invalid ID.
//
// Messages of one session to one ID arrive in the order in which they were sent, be it by Send, SendAsync or Post.
func (s *InProcess) Send(ctx context.Context, from, to string, payload []byte) (reply []byte, err error) {
	if err := s.checkSend(ctx, from, to, payload); err != nil {
		return nil, err
	}
	ch := make(chan answer, 1)
	var seq uint64
	err = s.submit(ctx, &call{ch: ch, send: true, byCtx: s.endsWith(ctx)}, func(b []byte, n uint64) []byte {
		seq = n
		return appendSend(b, ctx, n, from, to, payload, codec.FlagAck)
	})
	if err != nil {
		return nil, notSent(err)
	}
	select {
	case a := <-ch:
		return a.result()
	case <-ctx.Done():
	}
	if s.giveUp(seq) {
		return nil, &SendError{codec.CodeTimeout, "gave up waiting for the outcome", contextError(ctx)}
	}
	a := <-ch
	return a.result()
}

// SendAsync sends a message and returns as soon as the event loop has it to take. done is called exactly once, with what Send would
// have returned. ctx bounds the waiting for room, and its deadline is the message's; if it ends later, that changes nothing.
//
// Callbacks begin one after the other, in the order of the outcomes, on a goroutine that the
// session has for them, or on the caller's if the message could not be sent. A send counts as in
// flight until its callback begins. A callback may block and may call every method of the session
// except Close, which waits for it. If one has not returned after a second or two, the session logs
// it and begins the next ones, as long as no more than 256 are stuck.
func (s *InProcess) SendAsync(ctx context.Context, from, to string, payload []byte, done func(reply []byte, err error)) {
	err := s.checkSend(ctx, from, to, payload)
	if err == nil {
		err = s.submit(ctx, &call{done: done, send: true, byCtx: s.endsWith(ctx)}, func(b []byte, n uint64) []byte {
			return appendSend(b, ctx, n, from, to, payload, codec.FlagAck)
		})
	}
	if err != nil {
		callback.Contain(func() { done(nil, notSent(err)) }, func(f callback.Failure) {
			f.Log(s.eng.cfg.Logger, "in-process session: the callback of a SendAsync")
		})
	}
}

// Post sends a message without an outcome, and returns as soon as the event loop has it to take. The deadline of ctx, if any, is the
// message's; without one it has none. Post waits for room as Send does; an error says that nothing was sent. What becomes of the
// message afterwards is counted (Stats), and told to Hooks.Undeliverable.
func (s *InProcess) Post(ctx context.Context, from, to string, payload []byte) error {
	if err := s.checkSend(ctx, from, to, payload); err != nil {
		return err
	}
	err := s.submit(ctx, nil, func(b []byte, _ uint64) []byte {
		return appendSend(b, ctx, 0, from, to, payload, 0)
	})
	return notSent(err)
}

func appendSend(b []byte, ctx context.Context, seq uint64, from, to string, payload []byte, flags uint8) []byte {
	return codec.AppendSend(b, &codec.Send{Seq: seq, To: []byte(to), From: []byte(from), TTL: ttlOf(ctx), Flags: flags, Payload: payload})
}

// notSent makes an outcome of what submit, or checkSend, says.
func notSent(err error) error {
	if noRoom := (*noRoomError)(nil); errors.As(err, &noRoom) {
		return &SendError{codec.CodeExpired, "waited for room", noRoom.cause}
	}
	return err
}

// checkSend refuses what comes too late, and what would be no frame, or one that ends the session.
func (s *InProcess) checkSend(ctx context.Context, from, to string, payload []byte) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	switch {
	case !validID(to):
		return fmt.Errorf("engine: to has %d bytes, want 1 to %d", len(to), codec.MaxID)
	case len(from) > codec.MaxID:
		return fmt.Errorf("engine: from has %d bytes, at most %d are allowed", len(from), codec.MaxID)
	case len(payload) > s.eng.cfg.MaxPayload:
		return &SendError{Code: codec.CodeTooLarge}
	}
	return nil
}

func ttlOf(ctx context.Context) uint32 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(min(max(time.Until(deadline).Milliseconds(), 1), math.MaxUint32))
}

// endsWith reports whether the context's deadline is that of a message, and not MaxTTL.
func (s *InProcess) endsWith(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= s.eng.cfg.MaxTTL
}

// request submits a frame with a question and waits for its answer. One that comes later is given
// to late, if that is not nil.
func (s *InProcess) request(ctx context.Context, late func(answer), frame func(b []byte, seq uint64) []byte) (answer, error) {
	ch := make(chan answer, 1)
	var seq uint64
	err := s.submit(ctx, &call{ch: ch, late: late}, func(b []byte, n uint64) []byte {
		seq = n
		return frame(b, n)
	})
	if err != nil {
		return answer{}, err
	}
	select {
	case a := <-ch:
		return a, nil
	case <-ctx.Done():
		if !s.giveUp(seq) {
			return <-ch, nil
		}
		return answer{}, fmt.Errorf("engine: no answer: %w", contextError(ctx))
	case <-s.ended:
		select {
		case a := <-ch: // it came with the end
			return a, nil
		default:
			return answer{}, ErrSessionOver
		}
	}
}

// giveUp has nobody wait for an answer any more; false: it has come. The call stays in flight until it does.
func (s *InProcess) giveUp(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.waiting[seq]
	if ok {
		c.ch = nil
		s.waiting[seq] = c
	}
	return ok
}

// noRoomError is submit's if ctx ended before there was room.
type noRoomError struct{ cause error }

func (e *noRoomError) Error() string { return "engine: waited for room: " + e.cause.Error() }
func (e *noRoomError) Unwrap() error { return e.cause }

// submit hands a frame to the loop as soon as there is room: many submits, one wake. c is who waits for its answer, nil if it has none.
func (s *InProcess) submit(ctx context.Context, c *call, frame func(b []byte, seq uint64) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitForRoom(ctx, c != nil && c.send); err != nil {
		return err
	}
	s.append(frame)
	if c != nil {
		s.waiting[s.seq] = *c
		if c.send {
			s.inFlight++
		}
	}
	return nil
}

// append hands a frame to the loop, which must not wait for room. mu is held.
func (s *InProcess) append(frame func(b []byte, seq uint64) []byte) {
	s.seq++
	s.in = frame(s.in, s.seq)
	if !s.pumping {
		s.pumping = true
		s.conn.loop.post(s.pump)
	}
}

// waitForRoom waits until another frame may be submitted. mu is held.
func (s *InProcess) waitForRoom(ctx context.Context, send bool) error {
	most := s.eng.cfg.MaxInFlight
	inside := send && s.inFlight >= most && callback.Inside() // it must not wait for callbacks that wait for it
	full := func() bool {
		held := s.inFlight
		if inside && s.uncalled <= most {
			held -= s.uncalled
		}
		return len(s.in) > s.eng.cfg.MaxPending || send && held >= most
	}
	if full() && !s.over {
		defer context.AfterFunc(ctx, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.room.Broadcast()
		})()
	}
	for full() && !s.over && contextError(ctx) == nil {
		s.room.Wait()
	}
	switch {
	case s.over:
		return ErrSessionOver
	}
	if err := contextError(ctx); err != nil {
		return &noRoomError{err}
	}
	return nil
}

// answer hands an answer to who waits for it. mu is held.
func (s *InProcess) answer(seq uint64, a answer) {
	c, ok := s.waiting[seq]
	if !ok {
		return
	}
	delete(s.waiting, seq)
	a.byCtx = c.byCtx
	if c.done != nil {
		s.uncalled++
		s.outcomes.Push(outcome{c.done, a})
		if s.inFlight >= s.eng.cfg.MaxInFlight {
			s.room.Broadcast()
		}
		return
	}
	if c.send {
		s.landed()
	}
	switch {
	case c.ch != nil:
		c.ch <- a
	case c.late != nil:
		c.late(a)
	}
}

// landed counts a send that is not in flight any more. mu is held.
func (s *InProcess) landed() {
	if s.inFlight >= s.eng.cfg.MaxInFlight {
		s.room.Broadcast()
	}
	s.inFlight--
}

// endSends ends the sends of a session that is over: unreachable what the loop has not even taken, lost what it has (S1). mu is held.
func (s *InProcess) endSends() {
	eachFrame(s.in, func(kind codec.Kind, body []byte) {
		var f codec.Send
		if kind == codec.KindSend && codec.DecodeSend(body, &f) == nil && f.Flags&codec.FlagAck != 0 {
			s.answer(f.Seq, answer{code: codec.CodeUnreachable, reason: "the session is over"})
		}
	})
	s.in = nil
	for seq, c := range s.waiting {
		if c.send {
			s.answer(seq, answer{code: codec.CodeLost, reason: "the session is over"})
		}
	}
}
