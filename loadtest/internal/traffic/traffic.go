// Package traffic decides what a load test sends, when and to whom, and records what became of each
// message. It does no I/O: a driver (loadtest/internal/drive) moves the bytes.
//
// A [Traffic] has a window of messages for each connection (closed loop) or a schedule (open loop).
// It passes every delivery and outcome to the ledger and to its [Meter]. All of it belongs to one
// goroutine at a time, that of the driver.
package traffic

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"distmsg/codec"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/shape"
)

// Transport takes messages, to send them. A driver has this method.
type Transport interface {
	// Send accepts a message for a connection that is up. If it cannot at the moment, it returns
	// false, and the driver calls Traffic.Fill when it can.
	Send(conn int, m *Message) bool
}

// Config says what a Traffic sends. It has no defaults.
type Config struct {
	Run        uint64 // number of the run: its IDs and stamps contain it
	Seed       uint64 // of the choice of receivers
	Acks       bool   // messages are sent with ack
	Conns      int
	IDsPerConn int
	Fanout     int      // copies of each message
	Window     int      // messages in flight per connection; 0 for an open loop
	Cross      *float64 // share of messages to another node; nil: any share
	Zipf       float64  // the exponent of the receivers' popularity; 0: all are equally popular
	Offline    float64  // share of messages to IDs that nobody has bound
	OfflineIDs int      // the number of these IDs
	AckDelay   time.Duration
	Sizes      []shape.Size
	Stages     []shape.Stage // open loop: the rates; empty for a closed loop
	Poisson    bool          // open loop: messages start at random moments
}

// A Traffic decides what to send and when, and records what became of it. It belongs to the driver:
// callers of its methods hold the driver's exclusive right, and so do all who use its fields.
type Traffic struct {
	// Static. Transport is set before Start.
	Acks      bool
	IDs       [][]byte // those of connection c begin at c*PerConn; the last ones nobody binds
	PerConn   int      // IDs per connection
	Window    int      // messages in flight per connection; 0 for an open loop
	Fanout    int      // copies of each message
	AckDelay  time.Duration
	Clock     time.Time // zero of the run's clock
	Transport Transport

	// What happens.
	TTL     time.Duration // the longest time to live at any node
	Now     int64         // on the run's clock: the beginning of the current batch of events
	Ledger  *ledger.Ledger
	Meter   Meter
	Places  Places
	Trouble map[string]uint64 // what should not happen, and how often
	Server  string            // the version that the servers say they have; empty: they do not say
	Lost    uint64            // connections that were lost
	Moves   uint64            // moves to another node, or to another connection, without a gap
	Drains  uint64            // drain notices, counted per connection
	Crossed uint64            // messages to another node
	Sending bool
	Landed  chan struct{} // closed when sending has stopped and nothing is in flight

	// What comes next.
	rng      *rand.Rand
	filler   []byte  // the longest payload
	msg      Message // each message overwrites the stamp but not the filler
	sizes    shape.Sizes
	popular  *rand.Zipf // nil: all receivers are equally popular
	online   int        // the number of IDs that are bound
	offline  float64    // share of messages to IDs that nobody has bound
	cross    float64    // share of messages to another node; negative: any share
	senders  []sender
	schedule int64           // when sending began, on the run's clock
	arrivals *shape.Schedule // open loop: what is due when, since schedule
	due      uint64          // open loop: messages that are due by now
}

// sender is one connection as the traffic sees it.
type sender struct {
	up          bool
	torn        bool // one of its connections was cut, and is not restored yet
	maxInFlight int
	waiting     shape.Queue // open loop: when the messages should have left that could not yet
}

// A Message is what a driver is to send. The traffic owns it and its bytes. It is valid until the
// call returns.
type Message struct {
	Seq      uint64 // number of the first copy; the other copies have the next numbers
	To, From int    // indices of IDs; To is for the first copy, see Ledger.CopyTo
	Copies   int
	Payload  []byte
}

// Last returns the number of the last copy.
func (m *Message) Last() uint64 { return m.Seq + uint64(m.Copies) - 1 }

// New makes the traffic of a run. The run's clock begins.
func New(cfg *Config) *Traffic {
	rng := rand.New(rand.NewPCG(cfg.Seed, 0))
	online := cfg.Conns * cfg.IDsPerConn
	ids := make([][]byte, online+cfg.OfflineIDs)
	for i := range ids {
		ids[i] = fmt.Appendf(nil, "lt-%08x-%d", uint32(cfg.Run), i) // the ledger reads the index
	}
	sizes := shape.NewSizes(cfg.Sizes)
	payload := make([]byte, sizes.Most())
	for i := range payload {
		payload[i] = byte(rng.Uint32())
	}
	t := &Traffic{
		Acks: cfg.Acks, IDs: ids, PerConn: cfg.IDsPerConn, Window: cfg.Window, Fanout: cfg.Fanout, AckDelay: cfg.AckDelay, Clock: time.Now(),
		Ledger: ledger.New(ledger.Config{Run: cfg.Run, Acks: cfg.Acks, IDs: ids, Offline: cfg.OfflineIDs, PerConn: cfg.IDsPerConn, Fanout: cfg.Fanout}),
		Meter:  newMeter(), Places: newPlaces(cfg.Conns), Trouble: make(map[string]uint64), Landed: make(chan struct{}),
		rng: rng, filler: payload, sizes: sizes, msg: Message{Payload: payload, Copies: cfg.Fanout}, senders: make([]sender, cfg.Conns),
		online: online, offline: cfg.Offline, cross: -1,
	}
	if cfg.Cross != nil {
		t.cross = *cfg.Cross
	}
	if others := online - cfg.IDsPerConn; cfg.Zipf > 0 && others > 1 {
		t.popular = rand.NewZipf(rng, cfg.Zipf, 1, uint64(others-1))
	}
	if len(cfg.Stages) > 0 {
		if !cfg.Poisson {
			rng = nil
		}
		t.arrivals = shape.NewSchedule(cfg.Stages, rng)
	}
	return t
}

// Conns returns the number of connections.
func (t *Traffic) Conns() int { return len(t.senders) }

// Up reports whether a connection can send.
func (t *Traffic) Up(conn int) bool { return t.senders[conn].up }

// Longest returns the length of the longest payload.
func (t *Traffic) Longest() int { return len(t.filler) }

// Tick reads the clock. A driver calls it once per batch of events.
func (t *Traffic) Tick() {
	t.Now = int64(time.Since(t.Clock))
	t.Ledger.Time.Now = t.Now
}

// IDsOf returns the IDs that a connection has to bind.
func (t *Traffic) IDsOf(conn int) [][]byte { return t.IDs[conn*t.PerConn : (conn+1)*t.PerConn] }

// Start starts sending.
func (t *Traffic) Start() {
	t.Tick()
	t.schedule = t.Now
	t.Sending = true
	t.Ledger.Time.Start()
	for c := range t.senders {
		t.Fill(c)
	}
}

// Begun returns when sending began, on the run's clock.
func (t *Traffic) Begun() int64 { return t.schedule }

// Stop stops sending. Landed is closed once nothing is in flight.
func (t *Traffic) Stop() {
	t.Tick()
	t.Sending = false
	t.Ledger.Time.Stop()
	t.checkLanded()
}

func (t *Traffic) checkLanded() {
	if t.Sending || t.Ledger.InFlight() > 0 {
		return
	}
	select {
	case <-t.Landed:
	default:
		close(t.Landed)
	}
}

// ConnUp records that a connection can send, for the first time or again. At most maxInFlight of
// its messages may wait for their outcomes.
func (t *Traffic) ConnUp(conn, maxInFlight int) {
	s := &t.senders[conn]
	s.up, s.maxInFlight = true, maxInFlight
	if t.Window > 0 {
		s.maxInFlight = t.Window * t.Fanout
	}
	t.Fill(conn)
}

// ConnAt records at which node a connection is from now on.
func (t *Traffic) ConnAt(conn int, node string) { t.Places.put(conn, node) }

// ConnDown records that a connection has closed. It had the messages from number first on. written
// is the last number that the kernel got. The driver has thrown away the rest.
func (t *Traffic) ConnDown(conn int, first, written uint64) {
	t.senders[conn].up = false
	t.Lost++
	next := t.Ledger.NextSeq(conn)
	t.Ledger.Lose(conn, first, written, next-1)
	t.Ledger.Reconnect(conn, next, next)
	t.Ledger.BeginMove(conn, t.Now)
	t.cut(conn)
}

// LegDown records that the old leg of a connection has closed after a move. It had the messages
// from first to last. cut says that the node had not announced that it delivers nothing more there,
// so messages may have been lost.
func (t *Traffic) LegDown(conn int, first, written, last uint64, cut bool) {
	t.Ledger.Lose(conn, first, written, last)
	if cut {
		if t.senders[conn].up {
			t.EndMove(conn)
		}
		t.cut(conn)
	}
	t.next(conn)
}

// SenderMoved records that the next message of a connection leaves at another node. The messages
// already sent continue.
func (t *Traffic) SenderMoved(conn int) {
	next := t.Ledger.NextSeq(conn)
	t.Ledger.Reconnect(conn, next, next)
	t.Moves++
}

// SessionDown is ConnDown for a driver that keeps the messages that were not written. Such a driver
// reports the outcomes of its sends with ack itself.
func (t *Traffic) SessionDown(conn int, written uint64) {
	t.senders[conn].up = false
	t.Lost++
	if !t.Acks {
		t.Ledger.Lose(conn, 1, written, written)
	}
	t.Ledger.Reconnect(conn, t.Ledger.FirstInFlight(conn), written+1)
	t.Ledger.BeginMove(conn, t.Now)
	t.cut(conn)
}

// SessionAttached records that such a session has attached to one more node, and perhaps leaves the
// node before. The session continues without a gap.
func (t *Traffic) SessionAttached(conn int, written uint64) {
	t.Ledger.Reconnect(conn, t.Ledger.FirstInFlight(conn), written+1)
	t.Ledger.BeginMove(conn, t.Now)
}

// SessionCut records that such a session has lost one of several nodes. It continues without a gap.
func (t *Traffic) SessionCut(conn int, written uint64) {
	t.Lost++
	if !t.Acks { // nobody knows which messages left over that connection
		t.Ledger.Lose(conn, 1, written, written)
	}
	t.Ledger.Reconnect(conn, t.Ledger.FirstInFlight(conn), written+1)
	t.Ledger.BeginMove(conn, t.Now)
	t.cut(conn)
}

// BeginMove records that from now on the IDs of a connection may be reached over another
// connection.
func (t *Traffic) BeginMove(conn int) { t.Ledger.BeginMove(conn, t.Now) }

// EndMove records that from now on the IDs of a connection are reached over its new connection
// only, as all nodes will know soon.
func (t *Traffic) EndMove(conn int) {
	after := t.Now
	if t.Places.Several() {
		after += int64(spreadTime)
	}
	t.Ledger.EndMove(conn, after)
}

// spreadTime is how long the nodes may take to notify each other that a session has moved. Until
// then a message that one of them forwards to the old place comes back and takes another way.
const spreadTime = time.Second

// cut records that messages on their way to a connection may have been lost.
func (t *Traffic) cut(conn int) {
	t.senders[conn].torn = true
	t.Ledger.CutReceiver(conn)
	if !t.Acks {
		for c := range t.senders {
			t.Fill(c)
		}
	}
	t.checkLanded()
}

// Restored records that there is a new connection. Messages sent between the end of the old one and
// this moment may have been lost as well, because the nodes may have noticed that end later than
// the driver.
func (t *Traffic) Restored(conn int) {
	if t.senders[conn].torn {
		t.cut(conn)
		t.senders[conn].torn = false
	}
}

// Deliver records a message that came in over a connection. It returns false if the driver must not
// accept the message.
func (t *Traffic) Deliver(conn int, to, from, payload []byte) bool {
	a := t.Ledger.Deliver(conn, to, from, payload)
	if a.Fresh && !t.Acks {
		t.Meter.count(a.At, t.Now)
	}
	if a.Landed {
		t.next(a.Sender)
	}
	return a.Intact
}

// Outcome records how a message ended. Without ack, that is a reported failure.
func (t *Traffic) Outcome(conn int, seq uint64, code codec.Code) {
	at, landed := t.Ledger.End(conn, seq, code)
	if !landed {
		return
	}
	if t.Acks && code == codec.CodeAcked {
		t.Meter.count(at, t.Now)
	}
	t.next(conn)
}

// next continues after a message of a connection has landed.
func (t *Traffic) next(conn int) {
	if t.Sending {
		t.Fill(conn)
	} else {
		t.checkLanded()
	}
}

// Note counts something that should not happen.
func (t *Traffic) Note(what string) { t.Trouble[what]++ }

// Fill sends the messages that a connection may and should send now.
func (t *Traffic) Fill(conn int) {
	s := &t.senders[conn]
	for t.Sending && s.up && t.Ledger.InFlightFrom(conn)+t.Fanout <= s.maxInFlight {
		at := t.Now
		if t.Window == 0 {
			if s.waiting.Len() == 0 {
				return
			}
			at = s.waiting.First()
		}
		if !t.send(conn, at) {
			return
		}
		if t.Window == 0 {
			s.waiting.Pop()
		}
	}
}

// receiver chooses a random ID of another connection, at the node that cross asks for. If there is
// only one connection, it chooses an ID of that one. If the message is one of those to nobody, it
// chooses an ID that is not bound.
func (t *Traffic) receiver(conn int) int {
	if t.offline > 0 && t.rng.Float64() < t.offline {
		return t.online + t.rng.IntN(len(t.IDs)-t.online)
	}
	if t.cross >= 0 {
		if to, ok := t.Places.pick(t.rng, conn, t.rng.Float64() < t.cross); ok {
			return to*t.PerConn + t.rng.IntN(t.PerConn)
		}
	}
	others := t.online - t.PerConn
	if others == 0 {
		return t.rng.IntN(t.online)
	}
	var to int
	if t.popular != nil {
		to = int(t.popular.Uint64())
	} else {
		to = t.rng.IntN(others)
	}
	if to >= conn*t.PerConn {
		to += t.PerConn
	}
	return to
}

// send sends one message, with all its copies.
func (t *Traffic) send(conn int, at int64) bool {
	l := t.Ledger
	to := t.receiver(conn)
	seq := l.NextSeq(conn)
	s := ledger.Stamp{Run: l.Run(), Sender: uint32(conn), Receiver: uint32(to), Seq: seq, At: at}
	t.msg.Payload = t.filler[:t.sizes.Pick(t.rng)]
	s.Put(t.msg.Payload)
	t.msg.Seq, t.msg.To, t.msg.From = seq, to, l.From(conn, seq)
	if !t.Transport.Send(conn, &t.msg) {
		return false
	}
	for i := range t.Fanout {
		to := uint32(l.CopyTo(conn, to, i))
		l.Send(conn, to, at)
		if int(to) < t.online && t.Places.of[conn] != t.Places.of[l.Owner(to)] {
			t.Crossed++
		}
	}
	return true
}

// dueAt returns when the next message of the open loop should leave.
func (t *Traffic) dueAt() int64 {
	next := t.arrivals.Next()
	if next == shape.Never {
		return ledger.Unknown
	}
	return t.schedule + next
}

// Pace sends the messages that are due on the schedule of the open loop. Connections take turns. It
// returns the time until the next message.
func (t *Traffic) Pace() time.Duration {
	t.Tick()
	for t.dueAt() <= t.Now {
		conn := int(t.due % uint64(len(t.senders)))
		t.due++
		t.senders[conn].waiting.Push(t.dueAt())
		t.arrivals.Take()
		t.Fill(conn)
	}
	return time.Duration(t.dueAt() - t.Now)
}

// Unsent returns the number of messages whose connection could not take them when they were due.
func (t *Traffic) Unsent() (n uint64) {
	for i := range t.senders {
		n += uint64(t.senders[i].waiting.Len())
	}
	return n
}

// DownConns returns the number of connections that are down.
func (t *Traffic) DownConns() (n int) {
	for i := range t.senders {
		if !t.senders[i].up {
			n++
		}
	}
	return n
}

// Unlimited is the maxInFlight of ConnUp for connections without a limit.
const Unlimited = math.MaxInt

// MaxPayload is the length of the longest payload that a load test may send.
const MaxPayload = 64 << 20
