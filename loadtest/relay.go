package loadtest

import (
	"errors"
	"fmt"
	"time"

	"distmsg/codec"
)

// relay speaks the distmsg protocol (docs/protocol.md).
type relay struct {
	c   *wireConn
	t   *traffic
	ids []codec.IDEpoch // with the epochs that the node gave

	session, secret []byte // to resume with; empty before the first welcome
	limits          codec.Limits
	asked           int    // IDs up to here were asked for in this bind
	bound           int    // and up to here are bound
	credit, used    uint64 // bytes without ack: allowed and sent on this connection
	blocked         bool   // a send waits for credit
}

// maxFrame guards against a prefix that is not one; nodes announce what they take, not what they send.
const maxFrame = 2 * maxPayload

func newRelay(c *wireConn) protocol {
	r := &relay{c: c, t: c.w.t}
	for _, id := range r.t.idsOf(c.index) {
		r.ids = append(r.ids, codec.IDEpoch{ID: id})
	}
	return r
}

func (r *relay) open(b []byte) []byte {
	r.used, r.blocked = 0, false
	hello := codec.Hello{
		MinVersion: codec.Version, MaxVersion: codec.Version,
		Session: r.session, Secret: r.secret, Agent: []byte("distmsg-loadtest"),
	}
	if len(r.session) > 0 {
		hello.Flags = codec.HelloReplace // the old connection is gone, whether the node knows or not
	}
	return codec.AppendHello(b, &hello)
}

func (r *relay) send(b []byte, m *message) ([]byte, bool) {
	f := codec.Send{Seq: m.seq, To: r.t.ids[m.to], From: r.t.ids[m.from], Flags: codec.FlagAck, Payload: m.payload}
	if r.t.acks {
		return codec.AppendSend(b, &f), true
	}
	f.Flags = codec.FlagReport
	start := len(b)
	b = codec.AppendSend(b, &f)
	size := uint64(len(b) - start)
	if r.used+size > r.credit {
		r.blocked = true
		return b[:start], false
	}
	r.used += size
	return b, true
}

func (r *relay) ping(b []byte) []byte { return codec.AppendPing(b, 0) }

func (r *relay) bye(b []byte) []byte { return codec.AppendBye(b) }

func (r *relay) parse(b []byte) (used int, err error) {
	for err == nil {
		body, n, splitErr := codec.Split(b[used:], maxFrame)
		if n == 0 {
			return used, splitErr
		}
		used += n
		err = r.frame(body)
	}
	return used, err
}

func (r *relay) frame(body []byte) error {
	kind, err := codec.PeekKind(body)
	if err != nil {
		return err
	}
	switch kind {
	case codec.KindDeliver:
		return r.deliver(body)
	case codec.KindOutcome:
		var f codec.Outcome
		if err := codec.DecodeOutcome(body, &f); err != nil {
			return err
		}
		r.t.outcome(r.c.index, f.Seq, f.Code)
		return nil
	case codec.KindWelcome:
		return r.welcome(body)
	case codec.KindBound:
		return r.boundFrame(body)
	case codec.KindCredit:
		return r.creditFrame(body)
	case codec.KindPing:
		nonce, err := codec.DecodePing(body)
		r.say(codec.AppendPong(r.c.pending, nonce))
		return err
	case codec.KindPong:
		r.c.ponged()
		return nil
	case codec.KindDrain:
		r.t.drains++
		return nil
	case codec.KindKick:
		return r.kick(body)
	case codec.KindError:
		return r.errorFrame(body)
	case codec.KindHello, codec.KindBye, codec.KindBind, codec.KindUnbind, codec.KindLookup,
		codec.KindSend, codec.KindAck, codec.KindNotHere:
		return fmt.Errorf("a %v frame from a node", kind)
	}
	return nil // a later version's
}

// errorFrame takes what the node has to complain of. What only says why a connection ends, as they
// do when nodes come and go, is no complaint.
func (r *relay) errorFrame(body []byte) error {
	var f codec.ErrorFrame
	if err := codec.DecodeError(body, &f); err != nil {
		return err
	}
	switch f.Fault {
	case codec.FaultGoingAway, codec.FaultFenced:
		if r.c.wasUp {
			return nil
		}
	case codec.FaultUnauthenticated, codec.FaultSessionEnded:
		if len(r.session) > 0 { // to the next node, or the same after a restart, it means nothing
			r.session, r.secret = r.session[:0], r.secret[:0]
			return nil
		}
	}
	r.c.fail("error frame "+f.Fault.String(), f.Message)
	return nil
}

// say replaces the pending bytes by what an append function made of them.
func (r *relay) say(b []byte) {
	r.c.pending = b
	r.c.touch()
}

// deliver answers a delivery. A message that is not as it was sent is rejected, one for an ID of
// somebody else goes back; either is in the ledger already.
func (r *relay) deliver(body []byte) error {
	var f codec.Deliver
	if err := codec.DecodeDeliver(body, &f); err != nil {
		return err
	}
	ack := codec.Ack{Token: f.Token, Code: codec.CodeAcked}
	if !r.t.deliver(r.c.index, f.To, f.From, f.Payload) {
		if !r.holds(f.To) {
			r.say(codec.AppendNotHere(r.c.pending, &f))
			return nil
		}
		ack.Code, ack.Reason = codec.CodeRejected, []byte("not as it was sent")
	}
	if f.Flags&codec.FlagAck != 0 {
		r.say(codec.AppendAck(r.c.pending, &ack))
	}
	return nil
}

func (r *relay) holds(id []byte) bool {
	for i := range r.ids {
		if string(r.ids[i].ID) == string(id) {
			return true
		}
	}
	return false
}

func (r *relay) welcome(body []byte) error {
	var f codec.Welcome
	if err := codec.DecodeWelcome(body, &f); err != nil {
		return err
	}
	r.session = append(r.session[:0], f.Session...)
	r.secret = append(r.secret[:0], f.Secret...)
	r.limits, r.credit = f.Limits, f.Limits.Credit
	r.t.ttl = max(r.t.ttl, time.Duration(f.Limits.DefaultTTL)*time.Millisecond)
	if err := r.checkLimits(); err != nil {
		return err
	}
	resumed := f.Flags&codec.WelcomeResumed != 0
	if resumed && r.bound == len(r.ids) {
		r.ready()
		return nil
	}
	r.asked, r.bound = 0, 0
	r.bind()
	return nil
}

func (r *relay) checkLimits() error {
	if r.limits.MaxIDs == 0 {
		return errors.New("the node takes no IDs")
	}
	if size := uint64(len(r.t.msg.payload)); size > r.limits.MaxPayload {
		return fmt.Errorf("payload is %d bytes, the node takes %d", size, r.limits.MaxPayload)
	}
	if r.t.acks && uint64(r.t.window) > r.limits.MaxInFlight {
		return fmt.Errorf("window is %d, the node takes %d in flight", r.t.window, r.limits.MaxInFlight)
	}
	return nil
}

// bind asks for as many IDs as one frame may carry.
func (r *relay) bind() {
	n := min(len(r.ids)-r.bound, int(r.limits.MaxIDs))
	r.asked = r.bound + n
	r.say(codec.AppendBind(r.c.pending, uint64(r.bound)+1, codec.PolicyKickOld, r.ids[r.bound:r.asked]))
}

func (r *relay) boundFrame(body []byte) error {
	var f codec.Results
	if err := codec.DecodeResults(body, codec.KindBound, &f); err != nil {
		return err
	}
	if f.All.Len() != r.asked-r.bound {
		return errors.New("bound does not answer the bind")
	}
	for v, ok := f.All.Next(); ok; v, ok = f.All.Next() {
		if v.Code.Retryable() && r.c.wasUp {
			return errAgain
		}
		if v.Code != codec.CodeOK {
			return fmt.Errorf("bind: %v", v.Code)
		}
		r.ids[r.bound].Epoch = v.Epoch
		r.bound++
	}
	if r.bound < len(r.ids) {
		r.bind()
	} else {
		r.ready()
	}
	return nil
}

// kick is what no other session should cause: the IDs are this run's alone.
func (r *relay) kick(body []byte) error {
	id, epoch, err := codec.DecodeKick(body)
	if err != nil {
		return err
	}
	for i := range r.ids {
		if string(r.ids[i].ID) == string(id) && epoch > r.ids[i].Epoch {
			r.c.fail("kick", string(id))
		}
	}
	return nil
}

func (r *relay) ready() {
	if r.t.acks {
		r.c.up(int(r.limits.MaxInFlight))
	} else {
		r.c.up(unlimited)
	}
}

func (r *relay) creditFrame(body []byte) error {
	total, err := codec.DecodeCredit(body)
	if err != nil {
		return err
	}
	r.credit = max(r.credit, total)
	if r.blocked {
		r.blocked = false
		r.t.fill(r.c.index)
	}
	return nil
}
