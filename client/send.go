package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"distmsg/codec"
	"distmsg/internal/callback"
)

// Message is a message to send. The session does not use it after Send, SendAsync or Post has
// returned.
type Message struct {
	To      string // the receiver's ID
	From    string // an ID this session holds; "" only where the node allows that
	Payload []byte // opaque; at most the limit that the node announces (1 MiB by default)
	// Value, if not nil, is encoded with msgpack in Payload's place, on the goroutine of the
	// caller.
	Value any
	// TTL is how long the message may take. If the context's deadline is earlier, that one counts.
	// Without both, the node's default (5 s) applies to messages with an outcome, and posts may
	// take any time.
	TTL time.Duration
	// Trace is the trace that the message belongs to, as a W3C traceparent ("00-…"): the receiver
	// finds it in its Delivery. Nodes pass it on unchanged. One that is not valid is left out. If
	// it is sampled, the session makes spans of the message (Config.OnSpan), and nodes do.
	Trace string
}

// Reply is what the receiver answered.
type Reply struct {
	Payload []byte // owned by the caller; nil if the receiver only accepted
}

// Send sends a message and waits for its outcome: nil (acked, perhaps with a reply) or an *Error.
// It ends with exactly one outcome, at the latest about a second after its deadline: the context's
// or the TTL's, whichever is earlier.
//
// If the session's window is full, or the session is not attached to a node, Send waits. If that
// takes too long, it ends with expired or unreachable. It also waits after a node has refused
// messages because of a limit of this client (see [Error.Limit]). If ctx ends before the outcome is
// known, Send returns at once with timeout, which wraps the context's error.
//
// An error that is not an *Error means that nothing was sent: ErrClosed, the context's error if ctx
// had ended before the call, or a Value that cannot be encoded. If ctx ended the call,
// errors.Is(err, context.DeadlineExceeded) or errors.Is(err, context.Canceled) is true. Any
// goroutine may call Send. Messages that one goroutine sends to one ID, each after the outcome of
// the one before, keep their order; see Spread or mesh for SendAsync and Post.
func (s *Session) Send(ctx context.Context, m Message) (Reply, error) {
	w := s.calls.Get().(*call)
	w.since, w.span = s.stamp(), s.spanOf(SpanSend, &m, 1)
	c, seq, err := s.submit(ctx, outgoing{Message: m, call: w, span: w.span})
	if err != nil {
		err = s.refused(err, 1, w.since, w.span)
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
			s.endWith(w.span, r.err.Code)
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

// SendAsync sends a message and returns as soon as it is in the outgoing buffer. done is called
// exactly once, with what Send would have returned. ctx bounds how long SendAsync waits for room in
// the window and for a node, and its deadline counts as for Send. If ctx ends after that, nothing
// changes.
//
// Callbacks begin one after the other, in the order of the outcomes. They run on a goroutine of the
// session, or on the caller's goroutine if the message could not be sent. A callback may block and
// may call every method of the session except Close. If one has not returned after a second or two,
// the session logs it, counts it in Stats.Stuck, and begins the next ones. If Config.Workers
// callbacks are stuck, the others wait for them. SendAsync waits while Config.MaxInFlight callbacks
// have not begun yet, unless a callback calls it. Any goroutine may call SendAsync.
func (s *Session) SendAsync(ctx context.Context, m Message, done func(Reply, error)) {
	w := s.calls.Get().(*call)
	w.done, w.since, w.span = done, s.stamp(), s.spanOf(SpanSend, &m, 1)
	if _, _, err := s.submit(ctx, outgoing{Message: m, call: w, span: w.span, async: true}); err != nil {
		err = s.refused(err, 1, w.since, w.span)
		w.done = nil
		s.calls.Put(w)
		s.answerHere(ending{done: done, err: err})
	}
}

// Post sends a message without ack, so without an outcome, and returns as soon as it is in the
// outgoing buffer. It waits while the node's byte credit is used up and while the session is not
// attached. An error means that nothing was sent. Only Config.OnPostFailed reports what happens to
// the message, under the id that Post returns. Any goroutine may call Post.
func (s *Session) Post(ctx context.Context, m Message) (id uint64, err error) {
	span := s.spanOf(SpanPost, &m, 1)
	_, seq, err := s.submit(ctx, outgoing{Message: m, seq: s.posts.Add(1)<<1 | seqPost, span: span})
	s.posted(span, err)
	return seq >> 1, err
}

// outgoing is a message on its way to a connection's buffer. Without call and group it is a post.
type outgoing struct {
	Message
	call     *call     // of a Send or SendAsync
	to       []string  // of a multicast: the receivers
	group    *group    // of a multicast whose sender waits for the outcomes
	seq      uint64    // of a post
	span     *spanning // nil: nobody wants it
	async    bool      // the outcome goes to a callback
	deadline time.Time // zero: none
	byCtx    bool      // the deadline is the context's
	held     int       // bytes of the budget it holds
}

// acked reports whether the sender waits for the outcome.
func (o *outgoing) acked() bool { return o.call != nil || o.group != nil }

// msgs returns how many messages o stands for.
func (o *outgoing) msgs() int {
	if o.to != nil {
		return len(o.to)
	}
	return 1
}

// submit puts o into a connection's buffer. It waits for its budget (the session's window, or for a
// post the connection's credit), for a connection, and if the outcome goes to a callback, for room
// for that callback.
func (s *Session) submit(ctx context.Context, o outgoing) (c *conn, seq uint64, err error) {
	if err := mayBegin(ctx); err != nil {
		return nil, 0, err
	}
	o.deadline, o.byCtx = s.deadline(ctx, o.TTL, o.acked())
	if err := o.check(); err != nil {
		return nil, 0, err
	}
	if s.closed() {
		return nil, 0, ErrClosed
	}
	if o.Value != nil {
		value, err := encodeValue(o.Value)
		if err != nil {
			return nil, 0, err
		}
		defer value.free()
		o.Payload = value.b
	}
	if o.async {
		if err := s.reserve(ctx, &o); err != nil {
			return nil, 0, err
		}
		defer func() {
			if c == nil { // an error, or a panic of Config.Strategy
				s.cb.room.release(o.msgs(), 0)
			}
		}()
	}
	return s.submitAnywhere(ctx, &o)
}

// submitAnywhere puts o into the buffer of the first connection that takes it.
func (s *Session) submitAnywhere(ctx context.Context, o *outgoing) (*conn, uint64, error) {
	for {
		c := s.attachments.pick(o.From, o.To)
		if c == nil {
			if err := s.waitAttached(ctx, o); err != nil {
				return nil, 0, err
			}
			continue
		}
		seq, err := s.submitTo(ctx, c, o)
		if err == nil {
			return c, seq, nil
		}
		if err != errConnClosed {
			return nil, 0, err
		}
		s.attachments.drop(c) // c may not have done this itself yet: do not spin
	}
}

// submitTo puts o into c's buffer, or returns errConnClosed. It holds budget of its own kind only
// while it runs or after success.
func (s *Session) submitTo(ctx context.Context, c *conn, o *outgoing) (seq uint64, err error) {
	b := &s.window
	if !o.acked() {
		b = &c.credit
	}
	if o.to != nil {
		if err := c.takesMany(o.to, len(o.Payload)); err != nil {
			return 0, err
		}
	}
	if c.pace.on.Load() {
		if err := s.slowDown(ctx, c, o); err != nil {
			return 0, err
		}
	}
	for need := o.estimate(); ; {
		o.held = o.clamp(s, need)
		if !o.acked() && uint64(o.held) > c.limits.Credit {
			return 0, tooLarge(o.held, c.limits.Credit)
		}
		if !b.try(o.msgs(), o.held) {
			if err := s.acquire(ctx, b, o); err != nil {
				return 0, err
			}
		}
		seq, need, err = c.put(b, o)
		if err == nil && need == 0 {
			return seq, nil
		}
		b.release(o.msgs(), o.held)
		if err != nil {
			return 0, err
		}
	}
}

// put encodes o into the buffer. need is not 0 if o needs more of the budget than it holds and than
// is free. Then put has done nothing.
func (c *conn) put(b *budget, o *outgoing) (seq uint64, need int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.outPhase.messages() {
		return 0, 0, errConnClosed
	}
	ttl, err := o.ttl()
	if err != nil {
		return 0, 0, err
	}
	o.byCtx = o.byCtx && uint64(ttl) <= c.limits.MaxTTL // otherwise the node's limit ends it
	seq = c.number(o)
	out, err := c.encode(o, seq, ttl)
	if size := len(out) - len(c.out); err == nil {
		need = o.charge(c, b, seq, size)
	}
	if err != nil || need > 0 {
		switch {
		case o.call != nil:
			c.calls.end(seq)
		case o.group != nil:
			c.calls.dropLast()
		}
		return 0, need, err
	}
	c.commit(out)
	if o.acked() {
		c.s.count.sent.Add(uint64(o.msgs()))
	} else {
		c.s.count.posted.Add(uint64(o.msgs()))
	}
	return seq, 0, nil
}

// number gives o its sequence number, the first of several if it is a multicast, and enters it
// where its outcome will be looked for. It needs c.mu.
func (c *conn) number(o *outgoing) (seq uint64) {
	switch {
	case o.call != nil:
		o.call.byCtx = o.byCtx
		return c.calls.add(o.call, c.guard(o.deadline), o.held)
	case o.group != nil:
		o.group.byCtx = o.byCtx
		return c.calls.addGroup(o.group, c.guard(o.deadline), o.held)
	}
	return o.seq
}

// charge corrects what o holds of the budget to the frame's true size: upwards in any case,
// downwards for a post, because credit must be counted to the byte. It returns the size if there is
// no room.
func (o *outgoing) charge(c *conn, b *budget, seq uint64, size int) (need int) {
	want := o.clamp(c.s, size)
	if want == o.held || want < o.held && o.acked() {
		return 0
	}
	if !b.grow(want - o.held) {
		return size
	}
	o.held = want
	switch {
	case o.call != nil:
		c.calls.at(seq).cost = want
	case o.group != nil:
		o.group.cost = want
	}
	return 0
}

// encode appends o's frame to the buffer and returns the longer buffer. It needs c.mu.
func (c *conn) encode(o *outgoing, seq uint64, ttl uint32) ([]byte, error) {
	if o.to != nil {
		return c.encodeMany(o, seq, ttl), nil
	}
	f := codec.Send{
		Seq:     seq,
		To:      c.to[:copy(c.to[:], o.To)],
		From:    c.from[:copy(c.from[:], o.From)],
		TTL:     ttl,
		Flags:   c.s.flags(o.acked()),
		Payload: o.Payload,
		Trace:   c.traceOf(o),
	}
	if len(o.Payload) > int(c.limits.MaxPayload) {
		return c.out, tooLarge(len(o.Payload), c.limits.MaxPayload)
	}
	return codec.AppendSend(c.out, &f), nil
}

// traceOf returns o's trace as a frame has it. It needs c.mu, and the result is valid as long.
func (c *conn) traceOf(o *outgoing) []byte {
	if o.span != nil {
		return o.span.trace[:]
	}
	if o.Trace == "" || !codec.ParseTrace(&c.trace, o.Trace) {
		return nil
	}
	return c.trace[:]
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

// abandon reports whether w's outcome was still open. From then on nobody waits for it.
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
	if o.to == nil && !goodID(o.To) {
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

// estimate guesses the frame's size: for a send at its largest, so that it seldom needs more; for a
// post at its smallest, so that the last bytes of the credit can be used.
func (o *outgoing) estimate() int {
	// prefix, array, kind, seq, ttl, flags, and the heads of three strings
	const least, most = 13, 48
	n := len(o.To) + len(o.From) + len(o.Payload)
	for _, id := range o.to {
		n += 1 + len(id)
	}
	if !o.acked() {
		return least + n
	}
	if o.Trace != "" {
		n += 2 + codec.TraceLen
	}
	return most + n + len(o.to) // the heads of long IDs
}

// clamp lets a message that is larger than the whole window pass when nothing else is in flight.
func (o *outgoing) clamp(s *Session, n int) int {
	if !o.acked() {
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

// deadline returns when a message's time is over: the context's deadline (byCtx) or the TTL's,
// whichever comes first.
func (s *Session) deadline(ctx context.Context, ttl time.Duration, ack bool) (deadline time.Time, byCtx bool) {
	deadline, ok := ctx.Deadline()
	if ttl == 0 && !ok && ack {
		ttl = time.Duration(s.defaultTTL.Load()) * time.Millisecond
	}
	if ttl == 0 {
		return deadline, ok
	}
	if end := time.Now().Add(ttl); !ok || end.Before(deadline) {
		return end, false
	}
	return deadline, true
}

// acquire waits for o's budget.
func (s *Session) acquire(ctx context.Context, b *budget, o *outgoing) error {
	ctx, cancel := o.context(ctx)
	defer cancel()
	err := b.acquireInTime(ctx, o.msgs(), o.held)
	if err == nil || err == ErrClosed || err == errConnClosed {
		return err
	}
	return &Error{Code: codec.CodeExpired, Reason: "waited for room in the window", cause: err}
}

// slowDown waits until o may go, because the node has refused what was over a limit.
func (s *Session) slowDown(ctx context.Context, c *conn, o *outgoing) error {
	ctx, cancel := o.context(ctx)
	defer cancel()
	if err := c.pace.wait(ctx, c, o.msgs()); err != nil {
		return &Error{Code: codec.CodeExpired, Reason: "waited because a limit of this client is reached", cause: err}
	}
	return nil
}

// reserve takes o's place among the callbacks that have yet to begin. A callback itself does not
// wait for others, which might have to wait for it.
func (s *Session) reserve(ctx context.Context, o *outgoing) error {
	b := &s.cb.room
	if b.try(o.msgs(), 0) || callback.Inside() && b.exceed(o.msgs(), defaultMaxInFlight) {
		return nil
	}
	ctx, cancel := o.context(ctx)
	defer cancel()
	err := b.acquireInTime(ctx, o.msgs(), 0)
	if err == nil || err == ErrClosed {
		return err
	}
	return &Error{Code: codec.CodeExpired, Reason: "waited for the callbacks of earlier sends to return", cause: err}
}

// waitAttached waits for a connection.
func (s *Session) waitAttached(ctx context.Context, o *outgoing) error {
	ctx, cancel := o.context(ctx)
	defer cancel()
	_, err := s.attachments.wait(ctx)
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

// postID returns the number by which the sender knows a post. ok is false if seq does not belong to
// a post.
func postID(seq uint64) (id uint64, ok bool) {
	if seq&seqMany != 0 {
		return seq &^ (seqMany | seqManyPost), seq&seqManyPost != 0
	}
	return seq >> 1, seq&seqPost != 0
}

// refused counts the outcome of n sends that never reached a buffer, and ends their span.
func (s *Session) refused(err error, n int, since time.Time, span *spanning) error {
	if e, ok := errors.AsType[*Error](err); ok {
		for range n {
			s.ended(e.Code, since)
		}
		s.endWith(span, e.Code)
	}
	return err
}

// endCall passes an outcome to the sender that waits for it.
func (s *Session) endCall(w *call, reply Reply, err *Error) {
	if err != nil && w.byCtx {
		err.blame()
	}
	s.ended(codeOf(err), w.since)
	s.endWith(w.span, codeOf(err))
	w.span = nil
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

// codeOf returns the outcome that err stands for.
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

// postsFailed reports posts that will not arrive. If a node reports the posts of one multicast
// together, all of them are reported or none.
func (s *Session) postsFailed(failed []failure) {
	s.count.postsFailed.Add(uint64(len(failed)))
	notify(s, s.cfg.OnPostFailed != nil, s.cb.failures, failed...)
}
