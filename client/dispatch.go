package client

import (
	"fmt"
	"log/slog"

	"distmsg/codec"
)

// dispatch handles one frame from the node, on the reader's goroutine. An error ends the
// connection.
func (c *conn) dispatch(body []byte) error {
	kind, err := codec.PeekKind(body)
	if err != nil {
		return err
	}
	switch kind {
	case codec.KindDeliver:
		return c.onDeliver(body)
	case codec.KindDeliverMany:
		return c.onDeliverMany(body)
	case codec.KindOutcome:
		return c.onOutcome(body)
	case codec.KindOutcomes:
		return c.onOutcomes(body)
	case codec.KindBound, codec.KindUnbound, codec.KindFound, codec.KindWatched:
		return c.onResults(kind, body)
	case codec.KindChanged:
		return c.onChanged(body)
	case codec.KindCredit:
		return c.onCredit(body)
	case codec.KindKick:
		return c.onKick(body)
	case codec.KindDrain:
		return c.onDrain(body)
	case codec.KindReassert:
		return c.onReassert(body)
	case codec.KindRelogin:
		return c.onRelogin(body)
	case codec.KindLeft:
		return c.onLeft(body)
	case codec.KindMembers:
		return c.onMembers(body)
	case codec.KindPing:
		return c.onPing(body)
	case codec.KindPong: // it carries no other information
		_, err := codec.DecodePong(body)
		return err
	case codec.KindError:
		return c.onError(body)
	}
	if kind.FromClient() || kind == codec.KindWelcome {
		return fmt.Errorf("the node sent %s, which no node sends on an open connection", kind)
	}
	c.s.count.faults.Add(1) // the kind of a newer node, which the protocol says to skip
	return nil
}

// onDeliver queues a message for its handler. If it cannot be queued, onDeliver answers it, so that
// its sender hears an outcome.
func (c *conn) onDeliver(body []byte) error {
	s := c.s
	j := s.inbox.newJob(body)
	f := &j.deliver
	if err := codec.DecodeDeliver(j.frame, f); err != nil {
		return err
	}
	if now := s.now(); !c.queue(j, now) {
		c.notHere(f, now)
		s.inbox.recycle(j)
	}
	return nil
}

// queue queues a message that arrived at now for its handler, or rejects it. It returns false if
// the session does not hold the ID. Then the caller keeps the job.
func (c *conn) queue(j *job, now int64) bool {
	s, f := c.s, &j.deliver
	s.count.received.Add(1)
	b, handler := s.holds.holder(f.To, f.Epoch)
	switch {
	case b == nil || s.leaving.Load():
		return false
	case handler == nil:
		c.refuse(f, "the receiver has no handler")
	default:
		j.conn, j.binding, j.handler, j.since = c, b, handler, now
		owed := int64(f.Flags & codec.FlagAck)
		c.owed.Add(owed) // add before another goroutine can subtract
		if s.inbox.push(&b.lane, j) {
			return true
		}
		c.owed.Add(-owed)
		s.count.busy.Add(1)
		c.refuse(f, "receiver busy")
	}
	s.inbox.recycle(j)
	return true
}

// notHere returns a message to the node, which may know the holder by now. since is when it
// arrived. The node may send a message with ack elsewhere, so all of it goes back. A message
// without ack ends there, so its content is left out if the node supports that.
func (c *conn) notHere(f *codec.Deliver, since int64) {
	c.s.count.notHere.Add(1)
	if c.returnsBare && f.Flags&codec.FlagAck == 0 {
		bare := f.Short()
		f = &bare
	}
	if f.TTL != 0 {
		f.TTL = uint32(max(1, int64(f.TTL)-(c.s.now()-since)))
	}
	c.append(func(b []byte) []byte { return codec.AppendNotHere(b, f) })
}

func (c *conn) refuse(f *codec.Deliver, reason string) {
	if f.Flags&codec.FlagAck != 0 {
		_, _ = c.ack(&codec.Ack{Token: f.Token, Code: codec.CodeRejected, Reason: []byte(reason)})
	}
}

// ack answers a message. It returns retry if it sent nothing and another answer may be sent.
func (c *conn) ack(f *codec.Ack) (retry bool, err error) {
	if len(f.Reply) > int(c.limits.MaxPayload) {
		return true, tooLarge(len(f.Reply), c.limits.MaxPayload)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.outPhase.frames() {
		c.s.count.unheard.Add(1)
		return false, &Error{Code: codec.CodeUnreachable, Reason: "the connection of the message has closed", cause: c.cause}
	}
	c.commit(codec.AppendAck(c.out, f))
	return false, nil
}

func tooLarge(n int, limit uint64) *Error {
	return &Error{Code: codec.CodeTooLarge, Reason: fmt.Sprintf("%d bytes, the node allows %d", n, limit)}
}

// onOutcome ends a send, or reports a post that failed.
func (c *conn) onOutcome(body []byte) error {
	var f codec.Outcome
	if err := codec.DecodeOutcome(body, &f); err != nil {
		return err
	}
	c.s.postsFailed(c.outcome(&f, nil))
	return nil
}

// outcome ends the send that f names. If f names a post, outcome adds it to the posts that failed.
func (c *conn) outcome(f *codec.Outcome, failed []failure) []failure {
	var reply []byte
	if len(f.Reply) > 0 {
		reply = append(reply, f.Reply...)
	}
	if f.Code.Delivered() == codec.DeliveredYes && f.Code < codec.CodeRejected {
		c.end(f.Seq, Reply{Payload: reply}, nil)
		return failed
	}
	err := &Error{Code: f.Code, Reason: string(f.Reason), Reply: reply}
	if f.Code == codec.CodeOverflow {
		c.pace.heard(c, err.Reason)
	}
	if id, ok := postID(f.Seq); ok {
		return append(failed, failure{id, err})
	}
	c.end(f.Seq, Reply{}, err)
	return failed
}

// end gives a send its outcome, if it has none yet.
func (c *conn) end(seq uint64, reply Reply, err *Error) {
	if seq&seqMany != 0 {
		c.endCopy(seq, reply, err)
		return
	}
	c.mu.Lock()
	e, ok := c.calls.end(seq)
	c.mu.Unlock()
	if !ok {
		c.s.count.late.Add(1)
		return
	}
	c.s.window.release(1, e.cost)
	if e.call == nil {
		c.s.count.late.Add(1)
		return
	}
	c.s.endCall(e.call, reply, err)
}

func (c *conn) onCredit(body []byte) error {
	total, err := codec.DecodeCredit(body)
	if err == nil {
		c.credit.setLimits(unlimited, int(min(total, unlimited)))
	}
	return err
}

func (c *conn) onKick(body []byte) error {
	id, epoch, err := codec.DecodeKick(body)
	if err != nil {
		return err
	}
	if kick, lost := c.s.holds.kick(id, epoch); lost {
		c.s.kicked(kick)
	}
	return nil
}

func (c *conn) onDrain(body []byte) error {
	var f codec.Drain
	if err := codec.DecodeDrain(body, &f); err != nil {
		return err
	}
	c.draining.Store(true)
	select {
	case c.drained <- f:
	default: // one drain is enough
	}
	return nil
}

func (c *conn) onReassert(body []byte) error {
	within, err := codec.DecodeReassert(body)
	if err != nil {
		return err
	}
	select { // only the reader fills it, so it is empty after this
	case <-c.reassert:
	default:
	}
	c.reassert <- within
	return nil
}

func (c *conn) onLeft(body []byte) error {
	err := codec.DecodeLeft(body)
	if err == nil {
		c.departure.answered()
	}
	return err
}

func (c *conn) onMembers(body []byte) error {
	all, err := codec.DecodeMembers(body)
	if err == nil {
		c.s.attachments.mu.Lock()
		c.s.nodes.heardOf(all)
		c.s.attachments.mu.Unlock()
	}
	return err
}

func (c *conn) onPing(body []byte) error {
	nonce, err := codec.DecodePing(body)
	if err == nil {
		c.append(func(b []byte) []byte { return codec.AppendPong(b, nonce) })
	}
	return err
}

// fault is an error frame from the node.
type fault struct{ codec.ErrorFrame }

func (f *fault) Error() string { return fmt.Sprintf("the node says %s: %s", f.Fault, f.Message) }

func (c *conn) onError(body []byte) error {
	f := new(fault)
	if err := codec.DecodeError(body, &f.ErrorFrame); err != nil {
		return err
	}
	c.s.count.faults.Add(1)
	if f.Flags&codec.ErrorClosing != 0 {
		return f
	}
	c.s.cfg.Logger.Warn("distmsg: the node reported a fault", "node", c.node, "fault", f.Fault.String(),
		"kind", f.Kind.String(), "message", f.Message, slog.Uint64("seq", f.Seq))
	return nil
}
