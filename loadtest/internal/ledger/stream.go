package ledger

// state is what is known of one message.
type state uint8

const (
	sent      state = 1 << iota
	delivered       // intact, to the right receiver
	ended           // there was an outcome
	saysYes         // which claims that it was delivered
	saysNo          // which claims that it was not
	// without ack: a connection on its way is gone, so that perhaps nothing more will be heard
	adrift
	// in flight, with a later one delivered, when the route to the receiver began to change
	overtaken
)

// news are the states that something can be heard of.
const news = delivered | ended | adrift

// A flight is what is needed of a message only while it is in flight.
type flight struct {
	at       int64 // intended send time
	receiver uint32
	// which of several connections it left over, where one connection of the run is attached to
	// several nodes
	leg uint32
}

// A stream is all that is known of the messages of one sending connection, numbered from 1.
//
// Messages stand in pages of pageLen. A page goes when all its messages are settled, and of a
// message without a page everything is known: so a repeat of it is recognized at any later time.
// What holds a page back (an outcome "not delivered", which a delivery may still prove false) costs
// one byte a message, a page that is gone 8 bytes in all.
type stream struct {
	acks       bool
	sent       uint64 // messages so far, and the number of the last one
	inFlight   int
	connStarts []connStart // of the second and later connections
	pages      []*page     // nil: settled, all of it
	lowPage    int         // the first page that is not nil, or len(pages)
	order      order
	legs       uint32 // the highest leg; 0: there is but one
}

// connStart says where the messages of a new connection begin: after earliest-1 and not after
// latest. A driver that knows it exactly gives one number twice.
type connStart struct{ earliest, latest uint64 }

const pageLen = 128

type page struct {
	states  [pageLen]state
	open    int // messages, those not yet sent included, that are not settled
	flying  int // the same, not landed
	flights *[pageLen]flight
}

// pagePool holds pages for reuse by any stream.
type pagePool struct {
	pages   []*page
	flights []*[pageLen]flight
}

// has reports whether a message of this number was sent.
func (s *stream) has(seq uint64) bool { return seq-1 < s.sent } // 0 wraps around

// low is the lowest number whose delivery may still be news. It takes up to pageLen steps.
func (s *stream) low() uint64 {
	seq := uint64(s.lowPage)*pageLen + 1
	if s.lowPage < len(s.pages) {
		for _, v := range s.pages[s.lowPage].states {
			if !s.settled(v) {
				break
			}
			seq++
		}
	}
	return seq
}

// settled: nothing that comes can be news any more.
func (s *stream) settled(v state) bool {
	if s.acks {
		return v&(delivered|ended) == delivered|ended
	}
	return v&delivered != 0
}

// landed: the message is no longer in flight.
func (s *stream) landed(v state) bool {
	if s.acks {
		return v&ended != 0
	}
	return v&news != 0
}

// send adds the next message.
func (s *stream) send(pool *pagePool, f flight) {
	i := s.sent % pageLen
	if i == 0 {
		s.pages = append(s.pages, pool.get())
	}
	p := s.pages[len(s.pages)-1]
	p.states[i] = sent
	p.flights[i] = f
	s.sent++
	s.inFlight++
}

// mark adds to the state of a message that was sent, and returns the state before. bits holds one
// of news, and if that was known already nothing changes. landed says that the message was in
// flight until now, and at is then its intended send time.
func (s *stream) mark(pool *pagePool, seq uint64, bits state) (before state, at int64, landed bool) {
	n, i := int((seq-1)/pageLen), (seq-1)%pageLen
	p := s.pages[n]
	if p == nil {
		if s.acks {
			return sent | delivered | ended, 0, false
		}
		return sent | delivered, 0, false
	}
	before = p.states[i]
	if before&bits&news != 0 || s.settled(before) {
		return before, 0, false
	}
	after := before | bits
	p.states[i] = after
	if s.landed(after) && !s.landed(before) {
		at, landed = p.flights[i].at, true
		s.inFlight--
		if p.flying--; p.flying == 0 {
			pool.flights = append(pool.flights, p.flights)
			p.flights = nil
		}
	}
	if s.settled(after) && !s.settled(before) {
		if p.open--; p.open == 0 {
			s.drop(pool, n)
		}
	}
	return before, at, landed
}

// flight is what is known of a message in flight, and perhaps of one that has landed; else nil.
func (s *stream) flight(seq uint64) *flight {
	if p := s.pages[(seq-1)/pageLen]; p != nil && p.flights != nil {
		return &p.flights[(seq-1)%pageLen]
	}
	return nil
}

// overtake marks a message in flight.
func (s *stream) overtake(seq uint64) { s.pages[(seq-1)/pageLen].states[(seq-1)%pageLen] |= overtaken }

// firstInFlight is the lowest number in flight, or that of the next message.
func (s *stream) firstInFlight() uint64 {
	first := s.sent + 1
	s.eachInFlight(func(seq uint64, _ flight) { first = min(first, seq) })
	return first
}

func (s *stream) drop(pool *pagePool, n int) {
	pool.pages = append(pool.pages, s.pages[n])
	s.pages[n] = nil
	for s.lowPage < len(s.pages) && s.pages[s.lowPage] == nil {
		s.lowPage++
	}
}

// eachInFlight calls f for every message in flight; f may end it.
func (s *stream) eachInFlight(f func(seq uint64, fl flight)) {
	if s.inFlight == 0 {
		return
	}
	for n := s.lowPage; n < len(s.pages); n++ {
		p := s.pages[n]
		for i := 0; i < pageLen && p != nil && p.flights != nil; i++ {
			if v := p.states[i]; v&sent != 0 && !s.landed(v) {
				f(uint64(n*pageLen+i+1), p.flights[i])
			}
		}
	}
}

// eachOpen calls f for every message that is not settled.
func (s *stream) eachOpen(f func(state)) {
	for _, p := range s.pages[s.lowPage:] {
		for i := 0; i < pageLen && p != nil; i++ {
			if v := p.states[i]; v&sent != 0 && !s.settled(v) {
				f(v)
			}
		}
	}
}

func (pool *pagePool) get() *page {
	p := pop(&pool.pages)
	if p == nil {
		p = new(page)
	}
	flights := p.flights
	if flights == nil {
		flights = pop(&pool.flights)
	}
	if flights == nil {
		flights = new([pageLen]flight)
	}
	*p = page{open: pageLen, flying: pageLen, flights: flights}
	return p
}

// pop takes the last element, or the zero value when there is none.
func pop[T any](list *[]T) (v T) {
	if n := len(*list); n > 0 {
		v = (*list)[n-1]
		*list = (*list)[:n-1]
	}
	return v
}
