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

// ErrNotSupported is what a multicast or a watch returns where the node is too old to know it.
// Nothing was sent.
var ErrNotSupported = errors.New("client: the node does not support it")

// Result is how the copy of a multicast for one ID ended.
type Result struct {
	ID    string
	Reply Reply // what the receiver answered
	Err   error // nil: acked. Else an *Error, as Send returns it
}

// Multicast sends one message to many IDs and waits for the outcome of each: Results are in the
// order of to, and an ID that stands there twice gets the message twice. m.To must be empty. The
// message goes to the node once, and from there at most once to each node and to each app server
// that holds some of the IDs. Otherwise each copy is as if it had been sent with [Session.Send].
//
// Every copy has exactly one outcome, at the latest about a second after the deadline, which is the
// context's and the TTL's. When ctx ends before all are known, Multicast returns at once, with
// timeout for those that are not. An ID that no node would take ends bad_id and does not keep the
// others from their copies.
//
// An error means that the message was sent to nobody: ctx's error if ctx had ended before the call,
// ErrClosed, ErrNotSupported, a Value that cannot be encoded, or an *Error with the outcome that
// all of them share: expired or unreachable if the session's window or a node was waited for too
// long, and too_large over a limit of the node's, which the error names. These are the number of
// IDs (10,000 by default), the bytes of the payload, and those of the frame, of which each ID takes
// as many as it has and 64 more.
//
// Each copy has a place in the session's window (Config.MaxInFlight). A multicast to more IDs than
// that waits until nothing else is in flight. It may be called from any goroutine.
func (s *Session) Multicast(ctx context.Context, m Message, to []string) ([]Result, error) {
	if err := s.mayMulticast(ctx, m); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	g, good := s.newGroup(to)
	g.done = func() { close(done) }
	results := g.results
	if len(good) == 0 {
		return results, nil
	}
	c, _, err := s.submit(ctx, outgoing{Message: m, to: good, group: g})
	if err != nil {
		return nil, s.refused(err, len(good), g.since)
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
// returned. What [Session.SendAsync] says of ctx and of done holds here, too.
func (s *Session) MulticastAsync(ctx context.Context, m Message, to []string, done func([]Result, error)) {
	if err := s.mayMulticast(ctx, m); err != nil {
		s.answerHere(ending{many: done, err: err})
		return
	}
	g, good := s.newGroup(to)
	results := g.results
	g.done = func() { s.cb.answers.Push(ending{many: done, results: results, places: len(good)}) }
	if len(good) == 0 {
		s.answerHere(ending{many: done, results: results})
	} else if _, _, err := s.submit(ctx, outgoing{Message: m, to: good, group: g, async: true}); err != nil {
		s.answerHere(ending{many: done, err: s.refused(err, len(good), g.since)})
	}
}

// PostMulticast sends one message to many IDs without outcomes, and returns as soon as it is in the
// outgoing buffer, as [Session.Post] does for one: the node's byte credit counts the frame once.
// What happens to the copies is told only by Config.OnPostFailed, under the id that PostMulticast
// returns for the first of to, the next number for the second, and so on. An error says that
// nothing was sent: those of Multicast, and bad_id if there is an ID among them that no node would
// take. It may be called from any goroutine.
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
	_, _, err = s.submit(ctx, outgoing{Message: m, to: to, seq: id | seqMany | seqManyPost})
	return id, err
}

func (s *Session) mayMulticast(ctx context.Context, m Message) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	if m.To != "" {
		return fmt.Errorf("client: a multicast's Message.To is %q, want it empty: its receivers are given apart", m.To)
	}
	if s.closed() {
		return ErrClosed
	}
	return nil
}

// takesMany says what keeps the node from taking a multicast of a payload of that many bytes.
func (c *conn) takesMany(to []string, payload int) error {
	limit := c.limits.MaxMulticast
	if limit == 0 || !c.multicasts {
		return fmt.Errorf("%w: node %s knows no multicast", ErrNotSupported, c.node)
	}
	if uint64(len(to)) > limit {
		return &Error{Code: codec.CodeTooLarge, Reason: fmt.Sprintf("%d IDs in one multicast, the node takes %d", len(to), limit)}
	}
	if uint64(payload) > c.limits.MaxPayload {
		return tooLarge(payload, c.limits.MaxPayload)
	}
	if size := codec.MulticastSize(payload, to); uint64(size) > c.limits.MaxFrame {
		return &Error{Code: codec.CodeTooLarge, Reason: fmt.Sprintf(
			"a multicast of %d bytes to %d IDs counts %d bytes, the node takes frames of %d", payload, len(to), size, c.limits.MaxFrame)}
	}
	return nil
}

// encodeMany is encode for a multicast.
func (c *conn) encodeMany(o *outgoing, seq uint64, ttl uint32) []byte {
	f := codec.Multicast{
		Seq: seq, From: c.from[:copy(c.from[:], o.From)], TTL: ttl, Flags: c.s.flags(o.acked()), Payload: o.Payload,
	}
	return codec.AppendMulticast(c.out, &f, o.to) // takesMany has judged its size
}

// group is a multicast whose outcomes are awaited. Guarded by the mu of the connection that it was
// sent on, which is none at first.
type group struct {
	base     uint64   // the first copy's number, without seqMany
	open     []bool   // by copy: it has no outcome yet
	left     int      // how many have none
	cost     int      // what those hold of the window
	byCtx    bool     // the deadline is the context's
	deadline int64    // milliseconds on the session's clock
	results  []Result // nil: its sender stopped waiting
	at       []int    // by copy: its place in results; nil: the same
	since    time.Time
	done     func() // called when left is 0
}

// newGroup makes the results of a multicast, complete for the IDs that no node would take, and
// returns the others.
func (s *Session) newGroup(to []string) (g *group, good []string) {
	g = &group{results: make([]Result, len(to)), since: s.stamp()}
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
		}
	}
	g.open = make([]bool, len(good))
	return g, good
}

// result is where the outcome of copy i belongs.
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

// addGroup enters a multicast and returns the number of its first copy.
func (t *calls) addGroup(g *group, deadline int64, cost int) (seq uint64) {
	g.base, g.left, g.cost, g.deadline = t.next, len(g.open), cost, deadline
	for i := range g.open {
		g.open[i] = true
	}
	t.next += uint64(g.left)
	t.groups = append(t.groups, g)
	return g.base | seqMany
}

// dropLast takes back the last addGroup.
func (t *calls) dropLast() {
	last := len(t.groups) - 1
	t.next = t.groups[last].base
	t.groups = slices.Delete(t.groups, last, last+1)
}

// endCopy removes the copy that seq names from its multicast, which it returns with what the copy
// held of the window; nil if it has ended or there never was one.
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
		}
	}
	c.mu.Unlock()
	if awaited {
		c.s.ended(codeOf(err), g.since)
	} else {
		c.s.count.late.Add(1)
	}
	if last {
		g.done()
	}
}

// giveUp ends the copies of g that have no outcome yet for its sender, who looks at the results
// after that. They keep their places in the window until the node's outcomes.
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
}

// onDeliverMany queues one message for several IDs. Those that are not held go back together.
func (c *conn) onDeliverMany(body []byte) error {
	frame := &shared{body: slices.Clone(body)}
	var f codec.DeliverMany
	if err := codec.DecodeDeliverMany(frame.body, codec.KindDeliverMany, math.MaxInt32, &f); err != nil {
		return err
	}
	var back []codec.Recipient
	now := c.s.now()
	for v, ok := f.To.Next(); ok; v, ok = f.To.Next() {
		j := c.s.inbox.newSharedJob(frame)
		j.deliver = f.Deliver(&v)
		if !c.queue(j, now) {
			back = append(back, v)
			c.s.inbox.recycle(j)
		}
	}
	if len(back) > 0 {
		c.s.count.notHere.Add(uint64(len(back)))
		if c.returnsBare && f.Flags&codec.FlagAck == 0 {
			f = codec.DeliverMany{} // see notHere
		}
		c.append(func(b []byte) []byte { return codec.AppendDeliverMany(b, codec.KindNotHereMany, &f, back) })
	}
	return nil
}

// onOutcomes ends sends, or reports posts that failed.
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
