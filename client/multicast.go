package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"distmsg/codec"
)

// ErrNotSupported is the error of a multicast or a watch if the node is too old to support it.
// Nothing was sent.
var ErrNotSupported = errors.New("client: not supported")

// Result is how the copy of a multicast for one ID ended.
type Result struct {
	ID    string
	Reply Reply // the receiver's answer
	Err   error // nil if acked; otherwise an *Error, as Send returns it
}

// Multicast sends one message to many IDs and waits for the outcome of each. The results are in the
// order of to. An ID that is in to twice gets the message twice. m.To must be empty. The message
// goes to the node once, and from there at most once to each node and to each app server that holds
// some of the IDs. Otherwise each copy behaves as if it had been sent with [Session.Send].
//
// Every copy ends with exactly one outcome, at the latest about a second after its deadline: the
// context's or the TTL's, whichever is earlier. If ctx ends before all outcomes are known,
// Multicast returns at once, and the other copies end with timeout. The copy for an ID that no node
// would accept ends with bad_id. The others are sent.
//
// An error means that nothing was sent. It is ErrClosed, ErrNotSupported, the context's error if
// ctx had ended before the call, the error of a Value that cannot be encoded, or an *Error with the
// outcome that all copies share. This is expired or unreachable if Multicast waited too long for
// the session's window or for a node, and too_large if the multicast exceeds a limit of the node,
// which the error names. The node limits the number of IDs (10,000 by default), the bytes of the
// payload, and the bytes of the frame, in which each ID counts its own bytes and 64 more.
//
// Each copy has a place in the session's window (Config.MaxInFlight). A multicast to more IDs than
// that waits until nothing else is in flight. Any goroutine may call Multicast.
func (s *Session) Multicast(ctx context.Context, m Message, to []string) ([]Result, error) {
	if err := s.mayMulticast(ctx, m); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	g, good := s.newGroup(&m, to)
	g.done = func() { close(done) }
	results := g.results
	if len(good) == 0 {
		s.endSpan(g.span)
		return results, nil
	}
	c, _, err := s.submit(ctx, outgoing{Message: m, to: good, group: g, span: g.span})
	if err != nil {
		return nil, s.refused(err, len(good), g.since, g.span)
	}
	select {
	case <-done:
	case <-ctx.Done():
		c.giveUp(g, &Error{Code: codec.CodeTimeout, Reason: "gave up waiting for the outcome", cause: ctx.Err()})
	}
	return results, nil
}

// MulticastAsync sends one message to many IDs and returns as soon as it is in the outgoing buffer.
// done is called exactly once, when all outcomes are known, with what Multicast would have
// returned. The rules of [Session.SendAsync] for ctx and for done apply here, too. Any goroutine
// may call MulticastAsync.
func (s *Session) MulticastAsync(ctx context.Context, m Message, to []string, done func([]Result, error)) {
	if err := s.mayMulticast(ctx, m); err != nil {
		s.answerHere(ending{many: done, err: err})
		return
	}
	g, good := s.newGroup(&m, to)
	results := g.results
	g.done = func() { s.cb.answers.Push(ending{many: done, results: results, places: len(good)}) }
	if len(good) == 0 {
		s.endSpan(g.span)
		s.answerHere(ending{many: done, results: results})
	} else if _, _, err := s.submit(ctx, outgoing{Message: m, to: good, group: g, span: g.span, async: true}); err != nil {
		s.answerHere(ending{many: done, err: s.refused(err, len(good), g.since, g.span)})
	}
}

// PostMulticast sends one message to many IDs without outcomes, and returns as soon as it is in the
// outgoing buffer, as [Session.Post] does for one ID. The node's byte credit counts the frame once.
// Only Config.OnPostFailed reports what happens to the copies: under the returned id for the first
// ID of to, under the next number for the second, and so on. An error means that nothing was sent.
// It is one of those of Multicast, or bad_id if no node would accept one of the IDs. Any goroutine
// may call PostMulticast.
func (s *Session) PostMulticast(ctx context.Context, m Message, to []string) (id uint64, err error) {
	if err := s.mayMulticast(ctx, m); err != nil {
		return 0, err
	}
	for i, bad := range to {
		if !goodID(bad) {
			e := badID(bad)
			e.Reason = fmt.Sprintf("to[%d]: %s", i, e.Reason)
			return 0, e
		}
	}
	id = s.posts.Add(uint64(len(to))) - uint64(len(to)) + 1
	if len(to) == 0 {
		return id, nil
	}
	span := s.spanOf(SpanPost, &m, len(to))
	_, _, err = s.submit(ctx, outgoing{Message: m, to: to, seq: id | seqMany | seqManyPost, span: span})
	s.posted(span, err)
	return id, err
}

func (s *Session) mayMulticast(ctx context.Context, m Message) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	if m.To != "" {
		return fmt.Errorf("client: Message.To of a multicast is %q: leave it empty, and name the receivers in to", m.To)
	}
	if s.closed() {
		return ErrClosed
	}
	return nil
}

// takesMany returns an error if the node cannot accept a multicast to these IDs with a payload of
// that many bytes.
func (c *conn) takesMany(to []string, payload int) error {
	limit := c.limits.MaxMulticast
	if limit == 0 || !c.multicasts {
		return fmt.Errorf("%w: node %s has no multicast", ErrNotSupported, c.node)
	}
	if uint64(len(to)) > limit {
		return &Error{Code: codec.CodeTooLarge, Reason: fmt.Sprintf("%d IDs in one multicast, the node allows %d", len(to), limit)}
	}
	if uint64(payload) > c.limits.MaxPayload {
		return tooLarge(payload, c.limits.MaxPayload)
	}
	if size := codec.MulticastSize(payload, to); uint64(size) > c.limits.MaxFrame {
		return &Error{Code: codec.CodeTooLarge, Reason: fmt.Sprintf(
			"a multicast of %d bytes to %d IDs counts as %d bytes, the node allows frames of %d", payload, len(to), size, c.limits.MaxFrame)}
	}
	return nil
}

// encodeMany is encode for a multicast.
func (c *conn) encodeMany(o *outgoing, seq uint64, ttl uint32) []byte {
	f := codec.Multicast{
		Seq: seq, From: c.from[:copy(c.from[:], o.From)], TTL: ttl, Flags: c.s.flags(o.acked()), Payload: o.Payload,
		Trace: c.traceOf(o),
	}
	return codec.AppendMulticast(c.out, &f, o.to) // takesMany has checked its size
}

// group is a multicast whose sender waits for the outcomes. The mu of the connection that it was
// sent on guards it. Before that, only its sender has it.
type group struct {
	base     uint64   // the first copy's number, without seqMany
	open     []bool   // for each copy: it has no outcome yet
	left     int      // how many copies have none
	cost     int      // bytes that those hold in the window
	byCtx    bool     // the deadline is the context's
	deadline int64    // milliseconds on the session's clock
	results  []Result // nil if its sender has stopped waiting
	at       []int    // for each copy: its index in results; nil if it is the same
	since    time.Time
	span     *spanning // nil: nobody wants it, or it has ended
	done     func()    // called when left is 0
}

// newGroup makes the group of the multicast m and returns the IDs to send to. It leaves out those
// that no node would accept, and sets their results.
func (s *Session) newGroup(m *Message, to []string) (g *group, good []string) {
	g = &group{results: make([]Result, len(to)), since: s.stamp(), span: s.spanOf(SpanSend, m, len(to))}
	good = to
	if slices.ContainsFunc(to, func(id string) bool { return !goodID(id) }) {
		good = make([]string, 0, len(to))
		g.at = make([]int, 0, len(to))
	}
	for i, id := range to {
		g.results[i].ID = id
		switch {
		case g.at == nil:
		case goodID(id):
			good, g.at = append(good, id), append(g.at, i)
		default:
			g.results[i].Err = badID(id)
			s.ended(codec.CodeBadID, g.since)
			g.span.failed(codec.CodeBadID, 1)
		}
	}
	g.open = make([]bool, len(good))
	return g, good
}

// result returns the place for the outcome of copy i.
func (g *group) result(i int) *Result {
	if g.at != nil {
		i = g.at[i]
	}
	return &g.results[i]
}

// overdue appends the numbers of the copies that wait for an outcome, if their deadline is before
// now.
func (g *group) overdue(now int64, seqs []uint64) []uint64 {
	if g.deadline >= now {
		return seqs
	}
	for i, open := range g.open {
		if open {
			seqs = append(seqs, (g.base+uint64(i))|seqMany)
		}
	}
	return seqs
}

// addGroup adds a multicast and returns the sequence number of its first copy.
func (t *calls) addGroup(g *group, deadline int64, cost int) (seq uint64) {
	g.base, g.left, g.cost, g.deadline = t.next, len(g.open), cost, deadline
	for i := range g.open {
		g.open[i] = true
	}
	t.next += uint64(g.left)
	t.groups = append(t.groups, g)
	return g.base | seqMany
}

// dropLast undoes the last addGroup.
func (t *calls) dropLast() {
	last := len(t.groups) - 1
	t.next = t.groups[last].base
	t.groups = slices.Delete(t.groups, last, last+1)
}

// endCopy removes the copy that seq names from its multicast. It returns the multicast, the index
// of the copy, and the bytes that it held in the window. The multicast is nil if the copy has ended
// or never existed.
func (t *calls) endCopy(seq uint64) (g *group, copy, cost int) {
	if seq&seqManyPost != 0 {
		return nil, 0, 0
	}
	seq &^= seqMany
	n := sort.Search(len(t.groups), func(n int) bool { return t.groups[n].base > seq }) - 1
	if n < 0 || seq-t.groups[n].base >= uint64(len(t.groups[n].open)) {
		return nil, 0, 0
	}
	g, copy = t.groups[n], int(seq-t.groups[n].base)
	if !g.open[copy] {
		return nil, 0, 0
	}
	cost = g.cost / g.left
	g.open[copy] = false
	g.cost -= cost
	if g.left--; g.left == 0 {
		t.groups = slices.Delete(t.groups, n, n+1)
	}
	return g, copy, cost
}

// endCopy gives one copy of a multicast its outcome, if it has none yet.
func (c *conn) endCopy(seq uint64, reply Reply, err *Error) {
	c.mu.Lock()
	g, copy, cost := c.calls.endCopy(seq)
	awaited, last := false, false
	var span *spanning // if it ends here
	if g != nil {
		awaited, last = g.results != nil, g.left == 0
		c.s.window.release(1, cost)
	}
	if awaited {
		r := g.result(copy)
		r.Reply = reply
		if err != nil && g.byCtx {
			err.blame()
		}
		if err != nil {
			r.Err = err
			g.span.failed(err.Code, 1)
		}
		if last {
			span = g.span
		}
	}
	c.mu.Unlock()
	c.s.endSpan(span)
	if awaited {
		c.s.ended(codeOf(err), g.since)
	} else {
		c.s.count.late.Add(1)
	}
	if last {
		g.done()
	}
}

// giveUp gives the copies of g that have no outcome yet the outcome err. After that, only the
// sender uses the results. The copies keep their places in the window until the node's outcomes
// come.
func (c *conn) giveUp(g *group, err *Error) {
	n := 0
	c.mu.Lock()
	for i, open := range g.open {
		if open {
			g.result(i).Err = err
			n++
		}
	}
	g.results = nil
	c.mu.Unlock()
	for range n {
		c.s.ended(err.Code, g.since)
	}
	if n > 0 { // otherwise the last outcome has ended it
		g.span.failed(err.Code, n)
		c.s.endSpan(g.span)
	}
}

// onDeliverMany queues one message for several IDs. It returns the copies for IDs that the session
// does not hold to the node in one frame.
func (c *conn) onDeliverMany(body []byte) error {
	frame := &shared{body: slices.Clone(body)}
	var f codec.DeliverMany
	if err := codec.DecodeDeliverMany(frame.body, codec.KindDeliverMany, math.MaxInt32, &f); err != nil {
		return err
	}
	var back []codec.Recipient
	now := c.s.now()
	for n := 0; ; n++ {
		v, ok := f.To.Next()
		if !ok {
			break
		}
		j := c.s.inbox.newSharedJob(frame)
		j.spanless = n >= mostAlike
		j.deliver = f.Deliver(&v)
		if !c.queue(j, now) {
			back = append(back, v)
			c.s.inbox.recycle(j)
		}
	}
	if len(back) > 0 {
		c.s.count.notHere.Add(uint64(len(back)))
		if c.returnsBare && f.Flags&codec.FlagAck == 0 {
			f = codec.DeliverMany{} // without its content: see notHere
		}
		c.append(func(b []byte) []byte { return codec.AppendDeliverMany(b, codec.KindNotHereMany, &f, back) })
	}
	return nil
}

// onOutcomes ends several sends, or reports several posts that failed.
func (c *conn) onOutcomes(body []byte) error {
	all, err := codec.DecodeOutcomes(body)
	if err != nil {
		return err
	}
	var failed []failure
	for f, ok := all.Next(); ok; f, ok = all.Next() {
		failed = c.outcome(&f, failed)
	}
	c.s.postsFailed(failed)
	return nil
}
