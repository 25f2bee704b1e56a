package loadtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"distmsg/codec"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/shape"
)

// traffic decides what to send and when, and records what became of it. It belongs to the driver:
// callers of its methods hold the driver's exclusive right (see driver).
type traffic struct {
	// Static.
	acks   bool
	ids    [][]byte
	per    int // IDs per connection
	window int // messages in flight per connection; 0 for an open loop
	driver driver
	clock  time.Time // zero of the run's clock

	ttl      time.Duration // the longest time to live at any node
	now      int64         // on the run's clock: the beginning of the current batch of events
	rng      *rand.Rand
	filler   []byte  // the longest payload
	msg      message // the next one; each message overwrites the stamp but not the filler
	sizes    shape.Sizes
	popular  *rand.Zipf // nil: all receivers are equally popular
	online   int        // the number of IDs that are bound; those behind them in ids are not
	offline  float64    // share of messages to IDs that nobody has bound
	ackDelay time.Duration
	senders  []sender
	places   places
	cross    float64 // share of messages to another node; negative: any share
	crossed  uint64  // messages to another node
	ledger   *ledger.Ledger
	meter    meter
	trouble  map[string]uint64 // what should not happen, and how often
	lost     uint64            // connections that were lost
	moves    uint64            // moves to another node, or to another connection, without a gap
	drains   uint64            // drain notices, counted per connection
	schedule int64             // open loop: when the schedule began, on the run's clock
	arrivals *shape.Schedule   // open loop: what is due when, since schedule
	due      uint64            // open loop: messages that are due by now
	sending  bool
	landed   chan struct{} // closed when sending has stopped and nothing is in flight
}

// sender is one connection as the traffic sees it.
type sender struct {
	up          bool
	torn        bool // one of its connections was cut, and is not restored yet
	maxInFlight int
	waiting     shape.Queue // open loop: when the messages should have left that could not yet
}

// message is a message that a driver is to send. The traffic owns it and its bytes. It is valid
// until the call returns.
type message struct {
	seq      uint64 // number of the first copy; the other copies have the next numbers
	to, from int    // indices of IDs; to is for the first copy, see Ledger.CopyTo
	copies   int
	payload  []byte
}

// last returns the number of the last copy.
func (m *message) last() uint64 { return m.seq + uint64(m.copies) - 1 }

func newTraffic(cfg *Config, run uint64) *traffic {
	rng := rand.New(rand.NewPCG(cfg.Seed, 0))
	online := cfg.Conns * cfg.IDsPerConn
	ids := make([][]byte, online+cfg.offlineIDs())
	for i := range ids {
		ids[i] = fmt.Appendf(nil, "lt-%08x-%d", uint32(run), i) // the ledger reads the index
	}
	sizes := shape.NewSizes(cfg.sizes())
	payload := make([]byte, sizes.Most())
	for i := range payload {
		payload[i] = byte(rng.Uint32())
	}
	t := &traffic{
		acks: !cfg.NoAck, ids: ids, per: cfg.IDsPerConn, window: cfg.Window, clock: time.Now(),
		rng: rng, filler: payload, sizes: sizes, msg: message{payload: payload, copies: cfg.Fanout}, senders: make([]sender, cfg.Conns),
		online: online, offline: cfg.Offline, ackDelay: cfg.AckDelay,
		ledger: ledger.New(ledger.Config{Run: run, Acks: !cfg.NoAck, IDs: ids, Offline: len(ids) - online, PerConn: cfg.IDsPerConn, Fanout: cfg.Fanout}), meter: newMeter(),
		trouble: make(map[string]uint64), landed: make(chan struct{}), cross: -1,
		places: newPlaces(cfg.Conns),
	}
	if cfg.Cross != nil {
		t.cross = *cfg.Cross
	}
	if others := online - cfg.IDsPerConn; cfg.Zipf > 0 && others > 1 {
		t.popular = rand.NewZipf(rng, cfg.Zipf, 1, uint64(others-1))
	}
	if cfg.openLoop() {
		t.arrivals = cfg.schedule(rng)
	}
	return t
}

// tick reads the clock. A driver calls it once per batch of events.
func (t *traffic) tick() {
	t.now = int64(time.Since(t.clock))
	t.ledger.Time.Now = t.now
}

// idsOf returns the IDs that a connection has to bind.
func (t *traffic) idsOf(conn int) [][]byte { return t.ids[conn*t.per : (conn+1)*t.per] }

// start starts sending.
func (t *traffic) start() {
	t.tick()
	t.schedule = t.now
	t.sending = true
	t.ledger.Time.Start()
	for c := range t.senders {
		t.fill(c)
	}
}

// stop stops sending. landed is closed once nothing is in flight.
func (t *traffic) stop() {
	t.tick()
	t.sending = false
	t.ledger.Time.Stop()
	t.checkLanded()
}

func (t *traffic) checkLanded() {
	if t.sending || t.ledger.InFlight() > 0 {
		return
	}
	select {
	case <-t.landed:
	default:
		close(t.landed)
	}
}

// connUp records that a connection can send, for the first time or again. At most maxInFlight of
// its messages may wait for their outcomes.
func (t *traffic) connUp(conn, maxInFlight int) {
	s := &t.senders[conn]
	s.up, s.maxInFlight = true, maxInFlight
	if t.window > 0 {
		s.maxInFlight = t.window * t.msg.copies
	}
	t.fill(conn)
}

// connAt records at which node a connection is from now on.
func (t *traffic) connAt(conn int, node string) { t.places.put(conn, node) }

// connDown records that a connection has closed. It had the messages from number first on. written
// is the last number that the kernel got. The driver has thrown away the rest.
func (t *traffic) connDown(conn int, first, written uint64) {
	t.senders[conn].up = false
	t.lost++
	next := t.ledger.NextSeq(conn)
	t.ledger.Lose(conn, first, written, next-1)
	t.ledger.Reconnect(conn, next, next)
	t.ledger.BeginMove(conn, t.now)
	t.cut(conn)
}

// legDown records that the old leg of a connection has closed after a move. It had the messages
// from first to last. cut says that the node had not announced that it delivers nothing more there,
// so messages may have been lost.
func (t *traffic) legDown(conn int, first, written, last uint64, cut bool) {
	t.ledger.Lose(conn, first, written, last)
	if cut {
		if t.senders[conn].up {
			t.endMove(conn)
		}
		t.cut(conn)
	}
	t.next(conn)
}

// senderMoved records that the next message of a connection leaves at another node. The messages
// already sent continue.
func (t *traffic) senderMoved(conn int) {
	next := t.ledger.NextSeq(conn)
	t.ledger.Reconnect(conn, next, next)
	t.moves++
}

// sessionDown is connDown for a driver that keeps the messages that were not written. Such a driver
// reports the outcomes of its sends with ack itself.
func (t *traffic) sessionDown(conn int, written uint64) {
	t.senders[conn].up = false
	t.lost++
	if !t.acks {
		t.ledger.Lose(conn, 1, written, written)
	}
	t.ledger.Reconnect(conn, t.ledger.FirstInFlight(conn), written+1)
	t.ledger.BeginMove(conn, t.now)
	t.cut(conn)
}

// sessionMoved records that such a session has attached to one more node, and perhaps leaves the
// node before. sessionCut records that it has lost one of several nodes. In both cases the session
// continues without a gap.
func (t *traffic) sessionMoved(conn int, written uint64) {
	t.moves++
	t.ledger.Reconnect(conn, t.ledger.FirstInFlight(conn), written+1)
	t.ledger.BeginMove(conn, t.now)
}

func (t *traffic) sessionCut(conn int, written uint64) {
	t.lost++
	if !t.acks { // nobody knows which messages left over that connection
		t.ledger.Lose(conn, 1, written, written)
	}
	t.ledger.Reconnect(conn, t.ledger.FirstInFlight(conn), written+1)
	t.ledger.BeginMove(conn, t.now)
	t.cut(conn)
}

// beginMove records that from now on the IDs of a connection may be reached over another
// connection. endMove records that they are reached over that one only, as all nodes will know
// soon.
func (t *traffic) beginMove(conn int) { t.ledger.BeginMove(conn, t.now) }

func (t *traffic) endMove(conn int) {
	after := t.now
	if t.places.several() {
		after += int64(spreadTime)
	}
	t.ledger.EndMove(conn, after)
}

// spreadTime is how long the nodes may take to notify each other that a session has moved. Until
// then a message that one of them forwards to the old place comes back and takes another way.
const spreadTime = time.Second

// cut records that messages on their way to a connection may have been lost.
func (t *traffic) cut(conn int) {
	t.senders[conn].torn = true
	t.ledger.CutReceiver(conn)
	if !t.acks {
		for c := range t.senders {
			t.fill(c)
		}
	}
	t.checkLanded()
}

// restored records that there is a new connection. Messages sent between the end of the old one and
// this moment may have been lost as well, because the nodes may have noticed that end later than
// the driver.
func (t *traffic) restored(conn int) {
	if t.senders[conn].torn {
		t.cut(conn)
		t.senders[conn].torn = false
	}
}

// deliver records a message that came in over a connection. It returns false if the driver must not
// accept the message.
func (t *traffic) deliver(conn int, to, from, payload []byte) bool {
	a := t.ledger.Deliver(conn, to, from, payload)
	if a.Fresh && !t.acks {
		t.meter.count(a.At, t.now)
	}
	if a.Landed {
		t.next(a.Sender)
	}
	return a.Intact
}

// outcome records how a message ended. Without ack, that is a reported failure.
func (t *traffic) outcome(conn int, seq uint64, code codec.Code) {
	at, landed := t.ledger.End(conn, seq, code)
	if !landed {
		return
	}
	if t.acks && code == codec.CodeAcked {
		t.meter.count(at, t.now)
	}
	t.next(conn)
}

// next continues after a message of a connection has landed.
func (t *traffic) next(conn int) {
	if t.sending {
		t.fill(conn)
	} else {
		t.checkLanded()
	}
}

// note counts something that should not happen.
func (t *traffic) note(what string) { t.trouble[what]++ }

// fill sends the messages that a connection may and should send now.
func (t *traffic) fill(conn int) {
	s := &t.senders[conn]
	for t.sending && s.up && t.ledger.InFlightFrom(conn)+t.msg.copies <= s.maxInFlight {
		at := t.now
		if t.window == 0 {
			if s.waiting.Len() == 0 {
				return
			}
			at = s.waiting.First()
		}
		if !t.send(conn, at) {
			return
		}
		if t.window == 0 {
			s.waiting.Pop()
		}
	}
}

// receiver chooses a random ID of another connection, at the node that cross asks for. If there is
// only one connection, it chooses an ID of that one. If the message is one of those to nobody, it
// chooses an ID that is not bound.
func (t *traffic) receiver(conn int) int {
	if t.offline > 0 && t.rng.Float64() < t.offline {
		return t.online + t.rng.IntN(len(t.ids)-t.online)
	}
	if t.cross >= 0 {
		if to, ok := t.places.pick(t.rng, conn, t.rng.Float64() < t.cross); ok {
			return to*t.per + t.rng.IntN(t.per)
		}
	}
	others := t.online - t.per
	if others == 0 {
		return t.rng.IntN(t.online)
	}
	var to int
	if t.popular != nil {
		to = int(t.popular.Uint64())
	} else {
		to = t.rng.IntN(others)
	}
	if to >= conn*t.per {
		to += t.per
	}
	return to
}

// send sends one message, with all its copies.
func (t *traffic) send(conn int, at int64) bool {
	l := t.ledger
	to := t.receiver(conn)
	seq := l.NextSeq(conn)
	s := ledger.Stamp{Run: l.Run(), Sender: uint32(conn), Receiver: uint32(to), Seq: seq, At: at}
	t.msg.payload = t.filler[:t.sizes.Pick(t.rng)]
	s.Put(t.msg.payload)
	t.msg.seq, t.msg.to, t.msg.from = seq, to, l.From(conn, seq)
	if !t.driver.send(conn, &t.msg) {
		return false
	}
	for i := range t.msg.copies {
		to := uint32(l.CopyTo(conn, to, i))
		l.Send(conn, to, at)
		if int(to) < t.online && t.places.of[conn] != t.places.of[l.Owner(to)] {
			t.crossed++
		}
	}
	return true
}

// dueAt returns when the next message of the open loop should leave.
func (t *traffic) dueAt() int64 {
	next := t.arrivals.Next()
	if next == shape.Never {
		return ledger.Unknown
	}
	return t.schedule + next
}

// pace sends the messages that are due on the schedule of the open loop. Connections take turns. It
// returns the time until the next message.
func (t *traffic) pace() time.Duration {
	t.tick()
	for t.dueAt() <= t.now {
		conn := int(t.due % uint64(len(t.senders)))
		t.due++
		t.senders[conn].waiting.Push(t.dueAt())
		t.arrivals.Take()
		t.fill(conn)
	}
	return time.Duration(t.dueAt() - t.now)
}

// unsent returns the number of messages whose connection could not take them when they were due.
func (t *traffic) unsent() (n uint64) {
	for i := range t.senders {
		n += uint64(t.senders[i].waiting.Len())
	}
	return n
}

// downConns returns the number of connections that are down.
func (t *traffic) downConns() (n int) {
	for i := range t.senders {
		if !t.senders[i].up {
			n++
		}
	}
	return n
}

// unlimited is the maxInFlight of connUp for connections without a limit.
const unlimited = math.MaxInt
