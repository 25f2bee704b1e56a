package loadtest

import (
	"bytes"
	"math"
	"time"

	"distmsg/codec"
)

// Faults counts the messages about which the system did not keep its word. All zero: a clean ledger.
type Faults struct {
	// Missing: neither an outcome (acked mode), nor a delivery or a reported failure (without ack).
	Missing uint64 `json:"missing"`
	// FalseAcked: acked, never delivered.
	FalseAcked uint64 `json:"false_acked"`
	// FalseUndelivered: the outcome says "not delivered", yet it was.
	FalseUndelivered uint64 `json:"false_undelivered"`
	// DoubleOutcome: an outcome too many: a second one, or one for which there was no send.
	DoubleOutcome uint64 `json:"double_outcome"`
	// Duplicated: delivered again.
	Duplicated uint64 `json:"duplicated"`
	// Reordered: delivered after a later message of the same connection to the same ID (S20).
	Reordered uint64 `json:"reordered"`
	// Misrouted: delivered to a connection or an ID that it was not for.
	Misrouted uint64 `json:"misrouted"`
	// Corrupted: delivered with other bytes than were sent.
	Corrupted uint64 `json:"corrupted"`
	// FalseNoRoute: the outcome says that the receiver's ID is bound nowhere, yet its session held it from bindSettle
	// before the message was sent, and was still the same when it was next heard of: at the end of the run, or when it was resumed.
	FalseNoRoute uint64 `json:"false_no_route"`
	// FalseDenied: the outcome says that the sender may not send from its ID, yet its session held
	// that ID when the message was sent, and was still the same when it was next heard of. A run
	// sends from no other IDs than those it has bound.
	FalseDenied uint64 `json:"false_denied"`
}

// Total is the number of faults of all kinds.
func (f Faults) Total() uint64 {
	return f.Missing + f.FalseAcked + f.FalseUndelivered + f.DoubleOutcome +
		f.Duplicated + f.Reordered + f.Misrouted + f.Corrupted + f.FalseNoRoute + f.FalseDenied
}

// bindSettle is how long after a bind nodes may still say no_route: the 100 ms for which they
// remember that there was
// none (S19), and the time for look-ups that were under way.
const bindSettle = 500 * time.Millisecond

// A ledger knows of every message of a run whether it was delivered and how it ended, and counts
// the faults. It does no I/O and reads no clock; every event costs O(1) and, in steady state, no
// allocation. What is known of a message is kept until both its delivery and its outcome are
// settled (stream.go), so that a run may last as long as it likes.
type ledger struct {
	// Static.
	run     uint64
	acks    bool     // messages are sent with ack: each ends with one outcome
	ids     [][]byte // every ID of the run; connection c holds those from c*perConn on
	perConn int
	fanout  int   // copies of each message, each with a number and a receiver of its own
	notice  int64 // how long after the route to a receiver began to change the driver may hear of it

	streams   []stream // by sending connection
	routes    []route  // by connection: the way to its IDs
	time      timeline
	pages     pagePool
	inFlight  int
	sent      uint64
	delivered uint64
	outcomes  [128]uint64 // by code
	faults    Faults

	unanswered uint64 // nothing was known of them when close was told that more would come
}

// A route is what the ledger knows of the way to the IDs of one connection.
type route struct {
	changing int64 // order may break for messages sent up to then: when the last change was over
	bound    int64 // the IDs are bound since then, to the same session; unknown: not known

	// Messages that came behind later ones, when no change was known that excuses them. If the driver hears of one
	// within ledger.notice, they are excused.
	behind      uint64
	behindSince int64 // when the first of them was sent

	// Outcomes since then that say otherwise. They are judged when it is known whether the session
	// lived.
	noRoutes uint64 // of messages to the IDs
	denials  uint64 // of messages from them
}

// unknown is a time that never comes.
const unknown = math.MaxInt64

func newLedger(run uint64, acks bool, ids [][]byte, perConn, fanout int) *ledger {
	conns := len(ids) / perConn
	l := &ledger{run: run, acks: acks, ids: ids, perConn: perConn, fanout: fanout,
		streams: make([]stream, conns), routes: make([]route, conns), time: newTimeline(conns)}
	for i := range l.streams {
		l.streams[i].acks = acks
		l.routes[i] = route{changing: -1, bound: unknown}
	}
	return l
}

// owner is the connection that holds an ID.
func (l *ledger) owner(receiver uint32) int { return int(receiver) / l.perConn }

// from is the ID that a message is sent from: a connection takes its IDs in turn. seq is the number of its first copy.
func (l *ledger) from(sender int, seq uint64) int {
	return sender*l.perConn + int(seq/uint64(l.fanout)%uint64(l.perConn))
}

// copyTo is the receiver of copy i of a multicast that begins with the receiver first. The IDs of other connections than the
// sender's follow each other in a ring.
func (l *ledger) copyTo(sender, first, i int) int {
	if i == 0 {
		return first
	}
	to := (l.inRing(sender, first) + i) % (len(l.ids) - l.perConn)
	if to >= sender*l.perConn {
		to += l.perConn
	}
	return to
}

// inRing is where a receiver stands among the IDs of other connections than the sender's.
func (l *ledger) inRing(sender, receiver int) int {
	if receiver >= (sender+1)*l.perConn {
		receiver -= l.perConn
	}
	return receiver
}

// copyOf turns the stamp of a multicast, which all copies share, into that of the copy for the ID to; false: there is none.
func (l *ledger) copyOf(s *stamp, to []byte) bool {
	n, ok := decimal(to[bytes.LastIndexByte(to, '-')+1:])
	if !ok || n >= uint64(len(l.ids)) || l.owner(uint32(n)) == int(s.sender) {
		return false
	}
	ring := len(l.ids) - l.perConn
	i := (l.inRing(int(s.sender), int(n)) - l.inRing(int(s.sender), int(s.receiver)) + ring) % ring
	if i >= l.fanout {
		return false
	}
	s.seq, s.receiver = s.seq+uint64(i), uint32(n)
	return true
}

// nextSeq is the number that the next send of a connection will get.
func (l *ledger) nextSeq(sender int) uint64 { return l.streams[sender].sent + 1 }

// send books a message, which takes nextSeq.
func (l *ledger) send(sender int, receiver uint32, at int64) {
	l.streams[sender].send(&l.pages, flight{at: at, receiver: receiver})
	l.sent++
	l.inFlight++
	l.time.at().sent++
}

// An arrival is what the ledger makes of a delivery.
type arrival struct {
	sender int   // the sending connection
	at     int64 // intended send time
	intact bool  // it is for this connection and ID, and as it was sent
	fresh  bool  // it is intact and came for the first time
	landed bool  // it was in flight until now (without ack, delivery ends the flight)
}

// deliver books a delivery at connection conn under the ID to. from may be nil where the protocol does not tell it.
func (l *ledger) deliver(conn int, to, from, payload []byte) arrival {
	var s stamp
	if !s.read(payload) {
		l.faults.Corrupted++
		return arrival{}
	}
	if s.run != l.run {
		l.faults.Misrouted++
		return arrival{}
	}
	sender := int(s.sender)
	if sender >= len(l.streams) || int(s.receiver) >= len(l.ids) || !l.streams[sender].has(s.seq) ||
		from != nil && !bytes.Equal(from, l.ids[l.from(sender, s.seq)]) {
		l.faults.Corrupted++
		return arrival{}
	}
	if l.fanout > 1 && !l.copyOf(&s, to) || l.owner(s.receiver) != conn || !bytes.Equal(to, l.ids[s.receiver]) {
		l.faults.Misrouted++
		return arrival{}
	}
	return l.deliverIntact(&s)
}

func (l *ledger) deliverIntact(s *stamp) arrival {
	sender := int(s.sender)
	st := &l.streams[sender]
	a := arrival{sender: sender, at: s.at, intact: true}
	ahead := l.inOrder(st, s) // before mark, while s is not settled
	before, _, landed := st.mark(&l.pages, s.seq, delivered)
	if before&delivered != 0 {
		l.faults.Duplicated++
		return a
	}
	if before&saysNo != 0 {
		l.faults.FalseUndelivered++
	}
	if ahead > 0 && !l.excused(s, s.seq+uint64(ahead), before) {
		l.cameBehind(s, before)
	}
	l.delivered++
	l.time.deliver(l.owner(s.receiver))
	l.land(landed)
	a.fresh, a.landed = true, landed
	return a
}

// cameBehind books a message that came behind a later one and is not excused, at least not by what is known.
func (l *ledger) cameBehind(s *stamp, before state) {
	r := &l.routes[l.owner(s.receiver)]
	if l.notice == 0 || before&overtaken != 0 {
		l.faults.Reordered++
		return
	}
	if s.at-r.behindSince > l.notice {
		l.judgeBehind(r)
	}
	if r.behind == 0 {
		r.behindSince = s.at
	}
	r.behind++
}

// judgeBehind is for when no change can excuse what came behind any more.
func (l *ledger) judgeBehind(r *route) {
	l.faults.Reordered += r.behind
	r.behind = 0
}

// inOrder notes the delivery of s and returns by how much it is behind. Order is promised to what leaves over one
// connection; of a message that comes when its outcome is long known, that connection may be forgotten.
func (l *ledger) inOrder(st *stream, s *stamp) (ahead int32) {
	key := s.receiver
	if st.legs > 0 {
		f := st.flight(s.seq)
		if f == nil {
			return 0
		}
		key = l.orderKey(f)
	}
	return st.order.record(key, len(l.ids)*int(st.legs+1), s.seq, st)
}

func (l *ledger) orderKey(f *flight) uint32 { return f.leg*uint32(len(l.ids)) + f.receiver }

// leg books over which of its sender's connections a message is about to leave; they count from 1.
func (l *ledger) leg(sender int, seq uint64, leg uint32) {
	st := &l.streams[sender]
	st.legs = max(st.legs, leg)
	if f := st.flight(seq); f != nil {
		f.leg = leg
	}
}

// excused reports whether S20 lets s arrive after the later message last: they left over different connections, or
// the route changed while s was under way, and last was not ahead before that.
func (l *ledger) excused(s *stamp, last uint64, before state) bool {
	if l.routes[l.owner(s.receiver)].changing >= s.at && before&overtaken == 0 {
		return true
	}
	for _, c := range l.streams[s.sender].connStarts {
		if s.seq < c.latest && c.earliest <= last {
			return true
		}
	}
	return false
}

// end books an outcome (without ack: a reported failure). landed says that the message was in
// flight until now, and at is then its intended send time.
func (l *ledger) end(sender int, seq uint64, code codec.Code) (at int64, landed bool) {
	st := &l.streams[sender]
	if !st.has(seq) || !l.acks && code.Delivered() == codec.DeliveredYes {
		l.faults.DoubleOutcome++
		return 0, false
	}
	var receiver uint32
	if f := st.flight(seq); f != nil {
		receiver = f.receiver
	}
	before, at, landed := st.mark(&l.pages, seq, ended|claim(code))
	// Once delivered, a message without ack is settled, and no more is known of it.
	if before&ended != 0 && (l.acks || before&delivered == 0) {
		l.faults.DoubleOutcome++
		return 0, false
	}
	if before&delivered != 0 && code.Delivered() == codec.DeliveredNo {
		l.faults.FalseUndelivered++
	}
	l.outcomes[code&127]++
	l.time.outcome(code, at, landed)
	if landed {
		l.suspect(sender, receiver, code, at)
	}
	l.land(landed)
	return at, landed
}

// suspect keeps an outcome in mind that may be false: a no_route, or a denied.
func (l *ledger) suspect(sender int, receiver uint32, code codec.Code, at int64) {
	switch code {
	case codec.CodeNoRoute:
		if r := &l.routes[l.owner(receiver)]; r.bound != unknown && at >= r.bound+int64(bindSettle) {
			r.noRoutes++
		}
	case codec.CodeDenied: // no node remembers that an ID is somebody else's
		if r := &l.routes[sender]; r.bound != unknown && at >= r.bound {
			r.denials++
		}
	}
}

// bind books that the IDs of a connection have just been bound to a new session; with unknown, that they may be.
// What was said of the old session stands: it may have ended at any time.
func (l *ledger) bind(conn int, at int64) {
	r := &l.routes[conn]
	r.bound, r.noRoutes, r.denials = at, 0, 0
}

// resume books that the session of a connection has lived all the time.
func (l *ledger) resume(conn int) {
	r := &l.routes[conn]
	l.faults.FalseNoRoute += r.noRoutes
	l.faults.FalseDenied += r.denials
	r.noRoutes, r.denials = 0, 0
}

// claim is what an outcome says about the delivery. A rejection claims nothing: the driver itself
// rejects what is not intact, and such a message was not delivered.
func claim(code codec.Code) state {
	switch {
	case code.Delivered() == codec.DeliveredNo:
		return saysNo
	case code.Delivered() == codec.DeliveredYes && code < codec.CodeRejected:
		return saysYes
	}
	return 0
}

func (l *ledger) land(landed bool) {
	if landed {
		l.inFlight--
	}
}

// lose books that a sender's connection is gone, which had the messages from number first to last, those up to written
// written to it: what was in flight of them is lost, and the rest was thrown away.
func (l *ledger) lose(sender int, first, written, last uint64) {
	l.streams[sender].eachInFlight(func(seq uint64, _ flight) {
		switch {
		case seq < first || seq > last:
		case seq <= written:
			l.loseOne(sender, seq)
		default:
			l.end(sender, seq, codec.CodeUnreachable)
		}
	})
}

// reconnect books that a sender's messages leave over a new connection: earliest is the first that may, and latest the
// first that certainly does.
func (l *ledger) reconnect(sender int, earliest, latest uint64) {
	st := &l.streams[sender]
	st.connStarts = append(st.connStarts, connStart{earliest, latest})
}

// beginMove books that the route to a connection's IDs begins to change. What a later message is ahead of by now,
// that change does not excuse, unless the driver hears of it late.
func (l *ledger) beginMove(conn int, now int64) {
	r := &l.routes[conn]
	if r.behindSince < now-l.notice {
		l.judgeBehind(r)
	}
	r.behind = 0
	if r.changing < now { // else a change goes on, and may be why it is ahead
		for sender := range l.streams {
			st := &l.streams[sender]
			st.eachInFlight(func(seq uint64, f flight) {
				late := l.notice > 0 && f.at >= now-l.notice
				if !late && l.owner(f.receiver) == conn && st.order.seen(l.orderKey(&f), seq) {
					st.overtake(seq)
				}
			})
		}
	}
	r.changing = unknown
}

// endMove books when the change is over: all nodes know the new route from then on.
func (l *ledger) endMove(conn int, at int64) { l.routes[conn].changing = at }

// cutReceiver books that a connection died: nobody answers for messages without ack that were written to it.
func (l *ledger) cutReceiver(conn int) {
	if l.acks {
		return
	}
	for sender := range l.streams {
		l.streams[sender].eachInFlight(func(seq uint64, f flight) {
			if l.owner(f.receiver) == conn {
				l.loseOne(sender, seq)
			}
		})
	}
}

// loseOne ends a message, as docs/protocol.md tells a client to. Without ack that is not the last
// word: it may yet arrive, or be reported.
func (l *ledger) loseOne(sender int, seq uint64) {
	if l.acks {
		l.end(sender, seq, codec.CodeLost)
		return
	}
	_, _, landed := l.streams[sender].mark(&l.pages, seq, adrift)
	l.land(landed)
}

// close judges what is still open when nothing more will come. up says which connections are up: their sessions
// have lived until now. With more, outcomes still come in, and what has none is not judged. It ends
// the ledger.
func (l *ledger) close(up func(conn int) bool, more bool) {
	for conn := range l.routes {
		l.judgeBehind(&l.routes[conn])
		if up(conn) {
			l.resume(conn)
		}
	}
	for i := range l.streams {
		l.streams[i].eachOpen(func(s state) {
			switch {
			case s&saysYes != 0: // open, so not delivered
				l.faults.FalseAcked++
			case s&ended != 0:
			case s&adrift != 0:
				l.outcomes[codec.CodeLost]++
			case more:
				l.unanswered++
			default:
				l.faults.Missing++
			}
		})
	}
}

// acked is the number of messages that their receivers accepted.
func (l *ledger) acked() uint64 { return l.outcomes[codec.CodeAcked] }

// outcomeWords is the number of outcomes by word; words that did not occur are left out.
func (l *ledger) outcomeWords() map[string]uint64 {
	words := make(map[string]uint64)
	for code, n := range l.outcomes {
		if n > 0 {
			words[codec.Code(code).String()] = n
		}
	}
	return words
}
