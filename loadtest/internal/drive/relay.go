package drive

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"distmsg/codec"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/traffic"
)

// relaySession is what the legs of one connection share: the session and its IDs.
type relaySession struct {
	ids             []codec.IDEpoch // with the epochs that a node assigned
	session, secret []byte          // to resume the session; empty before the first welcome
	bound           bool            // this very session has bound all IDs
	// refused is what a hello showed that named the session and was refused. The next hello shows
	// it again, without the session. If it is refused, too, the login is wrong, and the session
	// goes on with another one; otherwise, the node does not know the session. Nil: no such hello.
	refused []byte
}

// relay speaks the distmsg protocol (docs/protocol.md).
type relay struct {
	leg *leg
	t   *traffic.Traffic
	*relaySession

	node    string
	limits  codec.Limits
	asked   int      // number of IDs that this round of binds has asked for
	done    int      // number of IDs that this round has bound
	binding bool     // a round of binds is under way
	again   bool     // another round will follow
	resumed bool     // the node knew the session
	credit  uint64   // bytes without ack that the node allows on this connection
	used    uint64   // bytes without ack that were sent
	blocked bool     // a send waits for credit
	bare    bool     // a message may be returned without its content
	many    [][]byte // scratch: the receivers of a multicast
}

// maxFrame guards against bytes that are no length prefix. Nodes announce which frames they accept,
// but not which frames they send.
const maxFrame = 2 * traffic.MaxPayload

func relayKind() Kind {
	return Kind{Name: "relay", Protocol: protocolName(), Multicast: true, Login: true, Delays: true, Reports: true, Churns: true, ask: askNode,
		make: func(t *traffic.Traffic, cfg *Config) Driver { return newWire(t, cfg, newRelay) }}
}

// protocolName names the protocol of docs/protocol.md with its version.
func protocolName() string { return fmt.Sprintf("distmsg %d", codec.Version) }

func newRelay(c *wireConn) func(*leg) protocol {
	s := new(relaySession)
	for _, id := range c.wire.t.IDsOf(c.index) {
		s.ids = append(s.ids, codec.IDEpoch{ID: id})
	}
	return func(l *leg) protocol { return &relay{leg: l, t: c.wire.t, relaySession: s} }
}

func (r *relay) index() int { return r.leg.conn.index }

func (r *relay) open(b []byte) []byte {
	hello := codec.Hello{
		MinVersion: codec.Version, MaxVersion: codec.Version, Features: codec.FeatureMulticast | codec.FeatureShortNotHere,
		Session: r.session, Secret: r.secret, Agent: []byte("distmsg-loadtest"), Credentials: r.leg.login,
	}
	if r.refused != nil {
		hello.Session, hello.Secret, hello.Credentials = nil, nil, r.refused
	} else if len(r.session) > 0 && r.leg.conn.cur == nil {
		// the old connection has closed, whether the node knows it or not
		hello.Flags = codec.HelloReplace
	}
	return codec.AppendHello(b, &hello)
}

func (r *relay) send(b []byte, m *traffic.Message) ([]byte, bool) {
	if r.t.Acks {
		return r.append(b, m, codec.FlagAck), true
	}
	start := len(b)
	b = r.append(b, m, codec.FlagReport)
	size := uint64(len(b) - start)
	if r.used+size > r.credit {
		r.blocked = true
		return b[:start], false
	}
	r.used += size
	return b, true
}

func (r *relay) append(b []byte, m *traffic.Message, flags uint8) []byte {
	if m.Copies == 1 {
		f := codec.Send{Seq: m.Seq, To: r.t.IDs[m.To], From: r.t.IDs[m.From], Flags: flags, Payload: m.Payload}
		return codec.AppendSend(b, &f)
	}
	r.many = r.many[:0]
	for i := range m.Copies {
		r.many = append(r.many, r.t.IDs[r.t.Ledger.CopyTo(r.index(), m.To, i)])
	}
	f := codec.Multicast{Seq: m.Seq, From: r.t.IDs[m.From], Flags: flags, Payload: m.Payload}
	return codec.AppendMulticast(b, &f, r.many)
}

func (r *relay) ping(b []byte) []byte { return codec.AppendPing(b, settleNonce) }

func (r *relay) beat(b []byte) []byte { return codec.AppendPing(b, beatNonce) }

func (r *relay) leave(b []byte) []byte { return codec.AppendLeave(b) }

// The values of pings. A pong returns the value of its ping.
const (
	settleNonce = 0
	beatNonce   = 1
)

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
	case codec.KindDeliverMany:
		return r.deliverMany(body)
	case codec.KindOutcome:
		var f codec.Outcome
		if err := codec.DecodeOutcome(body, &f); err != nil {
			return err
		}
		r.leg.ended()
		r.t.Outcome(r.index(), f.Seq, f.Code)
		return nil
	case codec.KindOutcomes:
		all, err := codec.DecodeOutcomes(body)
		if err != nil {
			return err
		}
		for f, ok := all.Next(); ok; f, ok = all.Next() {
			r.leg.ended()
			r.t.Outcome(r.index(), f.Seq, f.Code)
		}
		return nil
	case codec.KindWelcome:
		return r.welcome(body)
	case codec.KindBound:
		return r.boundFrame(body)
	case codec.KindCredit:
		return r.creditFrame(body)
	case codec.KindPing:
		nonce, err := codec.DecodePing(body)
		r.say(codec.AppendPong(r.leg.pending, nonce))
		return err
	case codec.KindPong:
		nonce, err := codec.DecodePong(body)
		if nonce == settleNonce {
			r.leg.ponged()
		}
		return err
	case codec.KindDrain:
		return r.drain(body)
	case codec.KindRelogin:
		return r.relogin(body)
	case codec.KindMembers:
		all, err := codec.DecodeMembers(body)
		r.leg.learn(all)
		return err
	case codec.KindReassert:
		return r.reassert(body)
	case codec.KindLeft:
		r.leg.gone()
		return codec.DecodeLeft(body)
	case codec.KindKick:
		return r.kick(body)
	case codec.KindError:
		return r.errorFrame(body)
	}
	if kind.FromClient() {
		return fmt.Errorf("a %v frame from a node", kind)
	}
	return nil // a frame of a later version
}

// errorFrame handles an error frame. Nodes that come and go end connections with an error frame,
// which only gives the reason. It counts only the other ones as errors.
func (r *relay) errorFrame(body []byte) error {
	var f codec.ErrorFrame
	if err := codec.DecodeError(body, &f); err != nil {
		return err
	}
	switch f.Fault {
	case codec.FaultGoingAway, codec.FaultFenced, codec.FaultReplaced:
		if r.leg.conn.wasUp {
			return nil
		}
	case codec.FaultUnauthenticated:
		switch {
		case r.leg.leaving, r.leg.conn.cur != nil:
			return nil // the session continues on another leg, or with another login
		case r.refused != nil:
			r.refused = nil
			return nil
		case len(r.session) > 0:
			r.refused = append([]byte{}, r.leg.login...)
			return nil
		}
	case codec.FaultSessionEnded:
		if r.leg.leaving {
			return nil // it ends on another leg
		}
		if len(r.session) > 0 { // unknown to the next node, or to this one after a restart
			r.forget()
			return nil
		}
	}
	r.leg.fail("error frame "+f.Fault.String(), f.Message)
	return nil
}

// forget makes the next leg begin a new session.
func (r *relay) forget() { r.session, r.secret, r.bound = r.session[:0], r.secret[:0], false }

// drain moves the connection if there is another node. It makes another leg first, and then this
// leg leaves.
func (r *relay) drain(body []byte) error {
	var f codec.Drain
	if err := codec.DecodeDrain(body, &f); err != nil {
		return err
	}
	r.t.Drains++
	c := r.leg.conn
	if c.cur == r.leg && (len(f.Addrs) > 0 || len(c.wire.addresses.after(c.addr, nil, false)) > 0) {
		c.wire.attach(c, f.Addrs, true, rand.N(time.Duration(f.Spread)*time.Millisecond+1))
	}
	return nil
}

// reassert binds all IDs again, at some moment in the time that the node gives to all its clients.
func (r *relay) reassert(body []byte) error {
	within, err := codec.DecodeReassert(body)
	if err != nil {
		return err
	}
	r.leg.later(rand.N(time.Duration(within)*time.Millisecond+1), func() {
		if r.binding {
			r.again = true
		} else if r.leg.conn.cur == r.leg {
			r.begin()
		}
	})
	return nil
}

// say replaces the pending bytes with the result of an append function.
func (r *relay) say(b []byte) {
	r.leg.pending = b
	r.leg.touch()
}

// deliver answers a delivery. It rejects a message whose bytes have changed, and returns a message
// for an ID of another session. The ledger has recorded both by then.
func (r *relay) deliver(body []byte) error {
	var f codec.Deliver
	if err := codec.DecodeDeliver(body, &f); err != nil {
		return err
	}
	if !r.take(&f) {
		if r.bare && f.Flags&codec.FlagAck == 0 { // the node does not need its content
			f = f.Short()
		}
		r.say(codec.AppendNotHere(r.leg.pending, &f))
	}
	return nil
}

// deliverMany does the same as deliver, for one message to several IDs.
func (r *relay) deliverMany(body []byte) error {
	var f codec.DeliverMany
	if err := codec.DecodeDeliverMany(body, codec.KindDeliverMany, math.MaxInt32, &f); err != nil {
		return err
	}
	var back []codec.Recipient
	for v, ok := f.To.Next(); ok; v, ok = f.To.Next() {
		if d := f.Deliver(&v); !r.take(&d) {
			back = append(back, v)
		}
	}
	if len(back) > 0 {
		if r.bare && f.Flags&codec.FlagAck == 0 {
			f = codec.DeliverMany{}
		}
		r.say(codec.AppendDeliverMany(r.leg.pending, codec.KindNotHereMany, &f, back))
	}
	return nil
}

// take answers a message. It returns false, without an answer, if the message is for an ID of
// another session.
func (r *relay) take(f *codec.Deliver) (held bool) {
	ack := codec.Ack{Token: f.Token, Code: codec.CodeAcked}
	if !r.t.Deliver(r.index(), f.To, f.From, f.Payload) {
		if !r.holds(f.To) {
			return false
		}
		ack.Code, ack.Reason = codec.CodeRejected, []byte("differs from what was sent")
	}
	switch {
	case f.Flags&codec.FlagAck == 0:
	case r.t.AckDelay > 0:
		r.ackLater(ack)
	default:
		r.say(codec.AppendAck(r.leg.pending, &ack))
	}
	return true
}

// ackLater answers a message after the delay that the run asks for. The leg stays open until then.
func (r *relay) ackLater(ack codec.Ack) {
	ack.Token = bytes.Clone(ack.Token)
	l := r.leg
	l.owed++
	l.later(r.t.AckDelay, func() {
		l.owed--
		r.say(codec.AppendAck(l.pending, &ack))
		l.finish()
	})
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
	r.node, r.resumed, r.refused = f.Node, f.Flags&codec.WelcomeResumed != 0, nil
	r.session = append(r.session[:0], f.Session...)
	r.secret = append(r.secret[:0], f.Secret...)
	r.limits, r.credit = f.Limits, f.Limits.Credit
	r.bare = f.Features&codec.FeatureShortNotHere != 0
	r.t.TTL = max(r.t.TTL, time.Duration(f.Limits.DefaultTTL)*time.Millisecond)
	r.leg.learn(f.Members)
	if err := r.checkLimits(f.Features); err != nil {
		return err
	}
	if !r.resumed {
		r.bound = false
		r.t.Ledger.Bind(r.index(), ledger.Unknown)
	}
	if r.bound {
		r.t.Ledger.Resume(r.index())
		r.ready()
		return nil
	}
	r.begin()
	return nil
}

func (r *relay) checkLimits(features uint64) error {
	if r.limits.MaxIDs == 0 {
		return errors.New("the node accepts no IDs")
	}
	if size := uint64(r.t.Longest()); size > r.limits.MaxPayload {
		return fmt.Errorf("payload is %d bytes, the node allows %d", size, r.limits.MaxPayload)
	}
	if n := max(r.t.Window, 1) * r.t.Fanout; r.t.Acks && uint64(n) > r.limits.MaxInFlight {
		return fmt.Errorf("window is %d (window times fanout), the node allows %d in flight", n, r.limits.MaxInFlight)
	}
	return r.checkFanout(features)
}

// checkFanout returns an error that says why the node does not accept the multicasts of this run.
func (r *relay) checkFanout(features uint64) error {
	n := r.t.Fanout
	if n == 1 {
		return nil
	}
	if features&codec.FeatureMulticast == 0 || r.limits.MaxMulticast == 0 {
		return errors.New("fanout: the node does not support multicast")
	}
	if uint64(n) > r.limits.MaxMulticast {
		return fmt.Errorf("fanout is %d, the node allows %d IDs in one multicast", n, r.limits.MaxMulticast)
	}
	longest := slices.MaxFunc(r.t.IDs, func(a, b []byte) int { return len(a) - len(b) })
	if size := codec.MulticastSize(r.t.Longest(), slices.Repeat([][]byte{longest}, n)); uint64(size) > r.limits.MaxFrame {
		return fmt.Errorf("fanout is %d with a payload of %d, which may count as %d bytes, the node allows frames of %d",
			n, r.t.Longest(), size, r.limits.MaxFrame)
	}
	return nil
}

// begin starts a round of binds over all IDs.
func (r *relay) begin() {
	r.asked, r.done, r.binding, r.again = 0, 0, true, false
	r.bind()
}

// bind binds as many IDs as fit into one frame.
func (r *relay) bind() {
	n := min(len(r.ids)-r.done, int(r.limits.MaxIDs))
	r.asked = r.done + n
	r.say(codec.AppendBind(r.leg.pending, uint64(r.done)+1, codec.PolicyKickOld, r.ids[r.done:r.asked]))
}

func (r *relay) boundFrame(body []byte) error {
	var f codec.Results
	if err := codec.DecodeResults(body, codec.KindBound, &f); err != nil {
		return err
	}
	if f.All.Len() != r.asked-r.done {
		return errors.New("bound does not match the bind")
	}
	for v, ok := f.All.Next(); ok; v, ok = f.All.Next() {
		switch {
		case v.Code == codec.CodeOK:
			r.ids[r.done].Epoch = v.Epoch
			r.done++
		case !v.Code.SafeToRetry() || !r.leg.conn.wasUp:
			return fmt.Errorf("bind: %v", v.Code)
		case v.Code == codec.CodeDraining && r.leg.conn.cur != r.leg:
			return errAgain // bind at another node
		case v.Code == codec.CodeDraining:
			r.binding = false // the leg to the next node will bind
			return nil
		default: // the binds that follow are sent again, too
			r.leg.later(minBind+rand.N(maxBackoff), r.bind)
			return nil
		}
	}
	switch {
	case r.done < len(r.ids):
		r.bind()
	case r.again:
		r.begin()
	default:
		r.binding = false
		r.ready()
	}
	return nil
}

// minBind is the shortest pause before a failed bind is sent again.
const minBind = 50 * time.Millisecond

// kick counts as an error: only this run has its IDs, so no other session should take them.
func (r *relay) kick(body []byte) error {
	id, epoch, err := codec.DecodeKick(body)
	if err != nil {
		return err
	}
	for i := range r.ids {
		if string(r.ids[i].ID) == string(id) && epoch > r.ids[i].Epoch {
			r.leg.fail("kick", string(id))
		}
	}
	return nil
}

// ready runs when all IDs are bound.
func (r *relay) ready() {
	if !r.bound {
		r.bound = true
		r.t.Ledger.Bind(r.index(), r.t.Ledger.Time.Now)
	}
	switch {
	case r.leg.conn.next != r.leg: // it has been up for a while
	case r.t.Acks:
		r.leg.up(r.node, int(r.limits.MaxInFlight))
	default:
		r.leg.up(r.node, traffic.Unlimited)
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
		r.t.Fill(r.index())
	}
	return nil
}
