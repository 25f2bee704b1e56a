package ledger

import (
	"maps"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"distmsg/codec"
)

// The model keeps every message and every event forever. It counts faults by their definition.
type modelMessage struct {
	receiver  uint32
	at        int64
	conn      int // how often the sender had reconnected before
	delivered int
	outcomes  []codec.Code
	landed    bool
	adrift    bool
	overtaken bool
}

type model struct {
	acks     bool
	perConn  int
	messages [][]*modelMessage // by sender
	conn     []int
	routeAge []int64
	latest   map[[2]int]uint64 // by sender and receiver: the highest number delivered
	faults   Faults
	words    map[string]uint64
	inFlight int
}

func (m *model) land(msg *modelMessage) {
	if !msg.landed {
		msg.landed = true
		m.inFlight--
	}
}

func (m *model) deliver(sender int, seq uint64) {
	msg := m.messages[sender][seq-1]
	msg.delivered++
	if msg.delivered > 1 {
		m.faults.Duplicated++
		return
	}
	if len(msg.outcomes) > 0 && msg.outcomes[0].Delivered() == codec.DeliveredNo {
		m.faults.FalseUndelivered++
	}
	pair := [2]int{sender, int(msg.receiver)}
	if last := m.latest[pair]; last > seq {
		if m.messages[sender][last-1].conn == msg.conn && (m.routeAge[int(msg.receiver)/m.perConn] < msg.at || msg.overtaken) {
			m.faults.Reordered++
		}
	} else {
		m.latest[pair] = seq
	}
	if !m.acks {
		m.land(msg)
	}
}

func (m *model) end(sender int, seq uint64, code codec.Code) {
	if seq == 0 || seq > uint64(len(m.messages[sender])) {
		m.faults.DoubleOutcome++
		return
	}
	msg := m.messages[sender][seq-1]
	switch {
	case !m.acks && code.Delivered() == codec.DeliveredYes:
		m.faults.DoubleOutcome++
		return
	case len(msg.outcomes) > 0 && (m.acks || msg.delivered == 0):
		m.faults.DoubleOutcome++
		return
	case msg.delivered > 0 && code.Delivered() == codec.DeliveredNo:
		m.faults.FalseUndelivered++
	}
	if m.acks || msg.delivered == 0 {
		msg.outcomes = append(msg.outcomes, code)
	}
	m.words[code.String()]++
	m.land(msg)
}

func (m *model) lose(sender int, written uint64) {
	for i, msg := range m.messages[sender] {
		switch {
		case msg.landed:
		case uint64(i+1) > written:
			m.end(sender, uint64(i+1), codec.CodeUnreachable)
		case m.acks:
			m.end(sender, uint64(i+1), codec.CodeLost)
		default:
			msg.adrift = true
			m.land(msg)
		}
	}
	m.conn[sender]++
}

func (m *model) move(conn int, now int64) {
	if m.routeAge[conn] < now {
		for sender, list := range m.messages {
			for i, msg := range list {
				if int(msg.receiver)/m.perConn == conn && !msg.landed && m.latest[[2]int{sender, int(msg.receiver)}] > uint64(i+1) {
					msg.overtaken = true
				}
			}
		}
	}
	m.routeAge[conn] = now
	for _, list := range m.messages {
		for _, msg := range list {
			if !m.acks && !msg.landed && int(msg.receiver)/m.perConn == conn {
				msg.adrift = true
				m.land(msg)
			}
		}
	}
}

func (m *model) close() {
	for _, list := range m.messages {
		for _, msg := range list {
			acked := len(msg.outcomes) > 0 && msg.outcomes[0] == codec.CodeAcked
			switch {
			case acked && msg.delivered == 0:
				m.faults.FalseAcked++
			case len(msg.outcomes) > 0 || !m.acks && msg.delivered > 0:
			case msg.adrift:
				m.words["lost"]++
			default:
				m.faults.Missing++
			}
		}
	}
}

// TestLedgerAgainstModel runs random events, most of them faults. The streams are so long that
// pages are freed.
func TestLedgerAgainstModel(t *testing.T) {
	codes := codec.Outcomes()
	rapid.Check(t, func(t *rapid.T) {
		conns := rapid.IntRange(1, 3).Draw(t, "conns")
		perConn := rapid.SampledFrom([]int{1, 2, 60}).Draw(t, "perConn")
		acks := rapid.Bool().Draw(t, "acks")
		// percent of events that are not in order
		chaos := rapid.IntRange(0, 100).Draw(t, "chaos")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		l := newLedger(7, acks, testIDs(conns*perConn), perConn, 1)
		m := &model{acks: acks, perConn: perConn, messages: make([][]*modelMessage, conns), conn: make([]int, conns),
			routeAge: make([]int64, conns), latest: map[[2]int]uint64{}, words: map[string]uint64{}}
		for i := range m.routeAge {
			m.routeAge[i] = -1
		}
		// the next message of each sender to deliver and ack
		next := make([]uint64, conns)
		for now := range int64(1500) {
			sender := rng.IntN(conns)
			sent := uint64(len(m.messages[sender]))
			if rng.IntN(100) >= chaos { // what a good node does
				if next[sender] < sent && rng.IntN(2) == 0 {
					next[sender]++
					msg := m.messages[sender][next[sender]-1]
					m.deliver(sender, next[sender])
					arrive(l, sender, next[sender], msg.receiver, msg.at)
					if acks {
						m.end(sender, next[sender], codec.CodeAcked)
						l.End(sender, next[sender], codec.CodeAcked)
					}
					continue
				}
				receiver := uint32(rng.IntN(len(l.ids)))
				m.messages[sender] = append(m.messages[sender], &modelMessage{receiver: receiver, at: now, conn: m.conn[sender]})
				m.inFlight++
				l.Send(sender, receiver, now)
				continue
			}
			seq := rng.Uint64N(sent + 2) // 0 and sent+1 do not exist
			switch op := rng.IntN(100); {
			case op < 50:
				if seq >= 1 && seq <= sent {
					msg := m.messages[sender][seq-1]
					m.deliver(sender, seq)
					arrive(l, sender, seq, msg.receiver, msg.at)
				}
			case op < 98:
				code := codes[rng.IntN(len(codes))]
				m.end(sender, seq, code)
				l.End(sender, seq, code)
			case op < 99:
				written := rng.Uint64N(sent + 1)
				m.lose(sender, written)
				l.Lose(sender, 1, written, sent)
				l.Reconnect(sender, sent+1, sent+1)
			default:
				m.move(sender, now)
				l.BeginMove(sender, now)
				l.CutReceiver(sender)
				l.EndMove(sender, now)
			}
			if l.inFlight != m.inFlight {
				t.Fatalf("event %d: %d in flight, want %d", now, l.inFlight, m.inFlight)
			}
		}
		m.close()
		l.Close(func(int) bool { return false }, false)
		if l.faults != m.faults {
			t.Fatalf("faults %+v,\n        want %+v", l.faults, m.faults)
		}
		if words := l.OutcomeWords(); !maps.Equal(words, m.words) {
			t.Fatalf("outcomes %v, want %v", words, m.words)
		}
	})
}
