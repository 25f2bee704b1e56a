// Package ledger records how every message of a load test ended, and finds the messages for which
// the system broke its promises.
//
// A [Ledger] records sends, deliveries, outcomes, and connections that open, close and move. It
// does no I/O and reads no clock. Its files: ledger.go judges; stream.go remembers the messages of
// one sending connection, and order.go what each receiver has seen of them; stamp.go is what a
// message says about itself; timeline.go knows when things happened.
//
// All of it belongs to one goroutine at a time.
package ledger

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"distmsg/codec"
)

// Faults counts the messages for which the system broke its promises. loadtest.Faults documents
// each field.
type Faults struct {
	Missing, FalseAcked, FalseUndelivered, DoubleOutcome, Duplicated, Reordered, Misrouted, Corrupted,
	FalseNoRoute, FalseDenied uint64
}

// BindSettle is how long after a bind a node may still answer no_route. It covers the 100 ms for
// which a node remembers that an ID had no route (S19), and the lookups that were under way.
const BindSettle = 500 * time.Millisecond

// A Ledger knows for every message of a run whether it was delivered and how it ended, and counts
// the faults. It does no I/O and reads no clock. Every event costs O(1) and, in steady state, no
// allocation. The ledger remembers a message until both its delivery and its outcome are settled
// (stream.go), so a run may last for any time.
type Ledger struct {
	// Static.
	run     uint64
	acks    bool     // messages are sent with ack: each ends with one outcome
	ids     [][]byte // every ID of the run; connection c holds those from c*perConn on
	perConn int
	online  int // the number of IDs that connections hold; nobody holds those behind them
	fanout  int // copies of each message, each with a number and a receiver of its own
	// how long after the route to a receiver began to change the driver may hear of it
	notice int64

	streams   []stream // by sending connection
	routes    []route  // by connection: the way to its IDs
	Time      Timeline
	pages     pagePool
	inFlight  int
	sent      uint64
	delivered uint64
	outcomes  Outcomes
	faults    Faults

	episodes   *Episodes // nil: the run is not divided
	expected   uint64    // no_routes of messages to IDs that nobody holds
	unanswered uint64    // messages without any news when Close was called with more
}

// A route is what the ledger knows about the way to the IDs of one connection.
type route struct {
	changing int64 // messages sent up to the end of the last change may break order
	bound    int64 // since when the same session holds the IDs; Unknown: not known

	// Messages that came behind later ones while no known change excuses them. If the driver hears
	// of a change within ledger.notice, they are excused.
	behind      uint64
	behindSince int64 // when the first of them was sent

	// Outcomes since bound that contradict it. The ledger judges them when it knows whether the
	// session lived.
	noRoutes uint64 // of messages to the IDs
	denials  uint64 // of messages from them
}

// Unknown is a time that never comes.
const Unknown = math.MaxInt64

// Config says what a Ledger is about. It has no defaults.
type Config struct {
	Run  uint64
	Acks bool // messages are sent with ack: each ends with one outcome
	// every ID of the run, each ending in "-" and its index; connection c holds those from
	// c*PerConn on
	IDs     [][]byte
	PerConn int
	Fanout  int // copies of each message, each with a number and a receiver of its own
	// the number of IDs at the end of IDs that no connection holds; messages to them must get
	// no_route
	Offline int
}

// New makes an empty ledger.
func New(cfg Config) *Ledger {
	online := len(cfg.IDs) - cfg.Offline
	conns := online / cfg.PerConn
	l := &Ledger{run: cfg.Run, acks: cfg.Acks, ids: cfg.IDs, perConn: cfg.PerConn, online: online, fanout: cfg.Fanout,
		streams: make([]stream, conns), routes: make([]route, conns), Time: newTimeline(conns)}
	for i := range l.streams {
		l.streams[i].acks = cfg.Acks
		l.routes[i] = route{changing: -1, bound: Unknown}
	}
	return l
}

// Owner returns the connection that holds an ID.
func (l *Ledger) Owner(receiver uint32) int { return int(receiver) / l.perConn }

// From returns the ID that a message is sent from. A connection takes its IDs in turn. seq is the
// number of the first copy of the message.
func (l *Ledger) From(sender int, seq uint64) int {
	return sender*l.perConn + int(seq/uint64(l.fanout)%uint64(l.perConn))
}

// CopyTo returns the receiver of copy i of a multicast whose first receiver is first. The IDs of
// all connections but the sender's form a ring.
func (l *Ledger) CopyTo(sender, first, i int) int {
	if i == 0 {
		return first
	}
	to := (l.inRing(sender, first) + i) % (len(l.ids) - l.perConn)
	if to >= sender*l.perConn {
		to += l.perConn
	}
	return to
}

// inRing returns the place of a receiver in the ring of all IDs but the sender's.
func (l *Ledger) inRing(sender, receiver int) int {
	if receiver >= (sender+1)*l.perConn {
		receiver -= l.perConn
	}
	return receiver
}

// All copies of a multicast share one stamp. copyOf changes s into the stamp of the copy for the ID
// to. It returns false if there is no such copy.
func (l *Ledger) copyOf(s *Stamp, to []byte) bool {
	n, err := strconv.ParseUint(string(to[bytes.LastIndexByte(to, '-')+1:]), 10, 32)
	if err != nil || n >= uint64(len(l.ids)) || l.Owner(uint32(n)) == int(s.Sender) {
		return false
	}
	ring := len(l.ids) - l.perConn
	i := (l.inRing(int(s.Sender), int(n)) - l.inRing(int(s.Sender), int(s.Receiver)) + ring) % ring
	if i >= l.fanout {
		return false
	}
	s.Seq, s.Receiver = s.Seq+uint64(i), uint32(n)
	return true
}

// NextSeq returns the number that the next send of a connection will get.
func (l *Ledger) NextSeq(sender int) uint64 { return l.streams[sender].sent + 1 }

// Send records a message. The message takes the number that NextSeq returns.
func (l *Ledger) Send(sender int, receiver uint32, at int64) {
	l.streams[sender].send(&l.pages, flight{at: at, receiver: receiver})
	l.sent++
	l.inFlight++
}

// An Arrival is the ledger's verdict on a delivery.
type Arrival struct {
	Sender int   // the sending connection
	At     int64 // intended send time
	Intact bool  // it came to its connection and ID with the bytes that were sent
	Fresh  bool  // it is intact, and came for the first time
	Landed bool  // it was in flight until now (without ack, delivery ends the flight)
}

// Deliver records a delivery at connection conn for the ID to. from may be nil if the protocol does
// not carry it.
func (l *Ledger) Deliver(conn int, to, from, payload []byte) Arrival {
	var s Stamp
	if !s.Read(payload) {
		l.faults.Corrupted++
		return Arrival{}
	}
	if s.Run != l.run {
		l.faults.Misrouted++
		return Arrival{}
	}
	sender := int(s.Sender)
	if sender >= len(l.streams) || int(s.Receiver) >= len(l.ids) || !l.streams[sender].has(s.Seq) ||
		from != nil && !bytes.Equal(from, l.ids[l.From(sender, s.Seq)]) {
		l.faults.Corrupted++
		return Arrival{}
	}
	if l.fanout > 1 && !l.copyOf(&s, to) || l.Owner(s.Receiver) != conn || !bytes.Equal(to, l.ids[s.Receiver]) {
		l.faults.Misrouted++
		return Arrival{}
	}
	return l.deliverIntact(&s)
}

func (l *Ledger) deliverIntact(s *Stamp) Arrival {
	sender := int(s.Sender)
	st := &l.streams[sender]
	a := Arrival{Sender: sender, At: s.At, Intact: true}
	ahead := l.inOrder(st, s) // before mark, while s is not settled
	before, _, landed := st.mark(&l.pages, s.Seq, delivered)
	if before&delivered != 0 {
		l.faults.Duplicated++
		return a
	}
	if before&saysNo != 0 {
		l.faults.FalseUndelivered++
	}
	if ahead > 0 && !l.excused(s, s.Seq+uint64(ahead), before) {
		l.cameBehind(s, before)
	}
	l.delivered++
	l.Time.deliver(l.Owner(s.Receiver))
	l.land(landed)
	a.Fresh, a.Landed = true, landed
	return a
}

// cameBehind records a message that came behind a later one. No change that is known so far excuses
// it.
func (l *Ledger) cameBehind(s *Stamp, before state) {
	r := &l.routes[l.Owner(s.Receiver)]
	if l.notice == 0 || before&overtaken != 0 {
		l.faults.Reordered++
		return
	}
	if s.At-r.behindSince > l.notice {
		l.judgeBehind(r)
	}
	if r.behind == 0 {
		r.behindSince = s.At
	}
	r.behind++
}

// judgeBehind counts the messages that came behind as reordered. Its callers know that no change
// can excuse them any more.
func (l *Ledger) judgeBehind(r *route) {
	l.faults.Reordered += r.behind
	r.behind = 0
}

// inOrder records the delivery of s and returns how far it came behind. Order is promised only to
// messages that leave over one connection. When a message comes long after its outcome was known,
// the ledger may have forgotten its connection.
func (l *Ledger) inOrder(st *stream, s *Stamp) (ahead int32) {
	key := s.Receiver
	if st.legs > 0 {
		f := st.flight(s.Seq)
		if f == nil {
			return 0
		}
		key = l.orderKey(f)
	}
	return st.order.record(key, len(l.ids)*int(st.legs+1), s.Seq, st)
}

func (l *Ledger) orderKey(f *flight) uint32 { return f.leg*uint32(len(l.ids)) + f.receiver }

// Leg records which of its sender's connections a message is about to leave over. Legs count from
// 1.
func (l *Ledger) Leg(sender int, seq uint64, leg uint32) {
	st := &l.streams[sender]
	st.legs = max(st.legs, leg)
	if f := st.flight(seq); f != nil {
		f.leg = leg
	}
}

// excused reports whether s may arrive after the later message last (S20). There are two excuses.
// The two left over different connections. Or the route changed while s was under way, and last was
// not ahead before the change.
func (l *Ledger) excused(s *Stamp, last uint64, before state) bool {
	if l.routes[l.Owner(s.Receiver)].changing >= s.At && before&overtaken == 0 {
		return true
	}
	for _, c := range l.streams[s.Sender].connStarts {
		if s.Seq < c.latest && c.earliest <= last {
			return true
		}
	}
	return false
}

// End records an outcome. Without ack, that is a reported failure. landed says that the message was
// in flight until now. at is then its intended send time.
func (l *Ledger) End(sender int, seq uint64, code codec.Code) (at int64, landed bool) {
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
	l.Time.outcome(code, at, landed)
	if landed {
		l.suspect(sender, receiver, code, at)
		if l.episodes != nil {
			l.episodes.ended(receiver, code, at, l.Time.Now)
		}
	}
	l.land(landed)
	return at, landed
}

// suspect remembers an outcome that may be false: a no_route or a denied.
func (l *Ledger) suspect(sender int, receiver uint32, code codec.Code, at int64) {
	switch code {
	case codec.CodeNoRoute:
		if int(receiver) >= l.online {
			l.expected++
			return
		}
		if r := &l.routes[l.Owner(receiver)]; r.bound != Unknown && at >= r.bound+int64(BindSettle) {
			r.noRoutes++
		}
	case codec.CodeDenied: // no node remembers that an ID is somebody else's
		if r := &l.routes[sender]; r.bound != Unknown && at >= r.bound {
			r.denials++
		}
	}
}

// Bind records that a new session has just bound the IDs of a connection. With Unknown, the session
// may have bound them. The ledger drops its suspicions about the old session, because that session
// may have ended at any time.
func (l *Ledger) Bind(conn int, at int64) {
	r := &l.routes[conn]
	r.bound, r.noRoutes, r.denials = at, 0, 0
}

// Resume records that the session of a connection has lived all the time.
func (l *Ledger) Resume(conn int) {
	r := &l.routes[conn]
	l.faults.FalseNoRoute += r.noRoutes
	l.faults.FalseDenied += r.denials
	r.noRoutes, r.denials = 0, 0
}

// claim returns what an outcome says about the delivery. A rejection says nothing: the driver
// itself rejects what is not intact, and such a message does not count as delivered.
func claim(code codec.Code) state {
	switch {
	case code.Delivered() == codec.DeliveredNo:
		return saysNo
	case code.Delivered() == codec.DeliveredYes && code < codec.CodeRejected:
		return saysYes
	}
	return 0
}

func (l *Ledger) land(landed bool) {
	if landed {
		l.inFlight--
	}
}

// Lose records that a connection of a sender is gone. It had the messages from number first to
// last, and those up to written were written to it. Of these, the messages in flight are lost. The
// driver threw the rest away.
func (l *Ledger) Lose(sender int, first, written, last uint64) {
	l.streams[sender].eachInFlight(func(seq uint64, _ flight) {
		switch {
		case seq < first || seq > last:
		case seq <= written:
			l.loseOne(sender, seq)
		default:
			l.End(sender, seq, codec.CodeUnreachable)
		}
	})
}

// Reconnect records that a sender's messages leave over a new connection. earliest is the first
// message that may leave there, and latest the first that certainly does.
func (l *Ledger) Reconnect(sender int, earliest, latest uint64) {
	st := &l.streams[sender]
	st.connStarts = append(st.connStarts, connStart{earliest, latest})
}

// BeginMove records that the route to a connection's IDs begins to change. The change does not
// excuse a later message for being ahead already, unless the driver hears of the change late.
func (l *Ledger) BeginMove(conn int, now int64) {
	r := &l.routes[conn]
	if r.behindSince < now-l.notice {
		l.judgeBehind(r)
	}
	r.behind = 0
	if r.changing < now { // else another change goes on, and may be the reason
		for sender := range l.streams {
			st := &l.streams[sender]
			st.eachInFlight(func(seq uint64, f flight) {
				late := l.notice > 0 && f.at >= now-l.notice
				if !late && l.Owner(f.receiver) == conn && st.order.seen(l.orderKey(&f), seq) {
					st.overtake(seq)
				}
			})
		}
	}
	r.changing = Unknown
}

// EndMove records when the change is over. From then on all nodes know the new route.
func (l *Ledger) EndMove(conn int, at int64) { l.routes[conn].changing = at }

// CutReceiver records that a connection died. Nobody answers for the messages without ack that were
// written to it.
func (l *Ledger) CutReceiver(conn int) {
	if l.acks {
		return
	}
	for sender := range l.streams {
		l.streams[sender].eachInFlight(func(seq uint64, f flight) {
			if l.Owner(f.receiver) == conn {
				l.loseOne(sender, seq)
			}
		})
	}
}

// loseOne ends a message as lost, as docs/protocol.md requires of a client. Without ack that is not
// final: the message may still arrive, or a node may report its failure.
func (l *Ledger) loseOne(sender int, seq uint64) {
	if l.acks {
		l.End(sender, seq, codec.CodeLost)
		return
	}
	_, _, landed := l.streams[sender].mark(&l.pages, seq, adrift)
	l.land(landed)
}

// Close judges the messages that are still open, after the last event. up says which connections
// are up: their sessions have lived until now. If more is true, outcomes still come in, and Close
// does not judge messages without an outcome. The ledger must not be used for events afterwards.
func (l *Ledger) Close(up func(conn int) bool, more bool) {
	for conn := range l.routes {
		l.judgeBehind(&l.routes[conn])
		if up(conn) {
			l.Resume(conn)
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

// Outcomes is the number of outcomes by code.
type Outcomes [128]uint64

// Outcomes returns the number of outcomes so far.
func (l *Ledger) Outcomes() Outcomes { return l.outcomes }

// Acked is the number of messages that their receivers accepted.
func (l *Ledger) Acked() uint64 { return l.outcomes[codec.CodeAcked] }

// OutcomeWords returns the number of outcomes by word. It leaves out words that did not occur.
func (l *Ledger) OutcomeWords() map[string]uint64 {
	words := make(map[string]uint64)
	for code, n := range l.outcomes {
		if n > 0 {
			words[codec.Code(code).String()] = n
		}
	}
	return words
}

// Heard returns a number that grows with every message of which the ledger learns anything new.
func (l *Ledger) Heard() uint64 {
	n := l.delivered
	for _, outcomes := range l.outcomes {
		n += outcomes
	}
	return n
}

// Divide lets the ledger record episodes from now on. Messages need acks.
func (l *Ledger) Divide() { l.episodes = newEpisodes(l.online, l.Time.Now) }

// Episodes returns the parts of the run, or nil without Divide.
func (l *Ledger) Episodes() *Episodes { return l.episodes }

// HearsLate sets how late the driver may hear that the route to a receiver began to change, in
// nanoseconds.
func (l *Ledger) HearsLate(notice int64) { l.notice = notice }

// Run returns the number of the run, which every stamp carries.
func (l *Ledger) Run() uint64 { return l.run }

// Sent returns the number of messages sent, each copy of a multicast counted.
func (l *Ledger) Sent() uint64 { return l.sent }

// Delivered returns the number of messages that came intact, each once.
func (l *Ledger) Delivered() uint64 { return l.delivered }

// Faults returns the faults that are known so far.
func (l *Ledger) Faults() Faults { return l.faults }

// ExpectedNoRoutes returns the number of no_routes of messages to IDs that nobody holds.
func (l *Ledger) ExpectedNoRoutes() uint64 { return l.expected }

// Unanswered returns the number of messages without any news when Close was called with more.
func (l *Ledger) Unanswered() uint64 { return l.unanswered }

// InFlight returns the number of messages in flight.
func (l *Ledger) InFlight() int { return l.inFlight }

// InFlightFrom returns the number of messages of one connection that are in flight.
func (l *Ledger) InFlightFrom(sender int) int { return l.streams[sender].inFlight }

// FirstInFlight returns the lowest number in flight from a connection. If none is in flight, it
// returns the number of its next message.
func (l *Ledger) FirstInFlight(sender int) uint64 { return l.streams[sender].firstInFlight() }

// ChangingUntil returns the time until which the route to a connection's IDs changes.
func (l *Ledger) ChangingUntil(conn int) int64 { return l.routes[conn].changing }
