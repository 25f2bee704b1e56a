package ledger

// state is what the ledger knows about one message.
type state uint8

const (
	sent      state = 1 << iota
	delivered       // it arrived intact, at the right receiver
	ended           // it has an outcome
	saysYes         // the outcome says that it was delivered
	saysNo          // the outcome says that it was not delivered
	// without ack: a connection on its way is gone, so perhaps no more news will come
	adrift
	// a later message was delivered before this one, when the route to the receiver began to change
	overtaken
)

// news are the states that come from an event.
const news = delivered | ended | adrift

// A flight is what the ledger needs to know about a message while it is in flight.
type flight struct {
	at       int64 // intended send time
	receiver uint32
	// which of several connections it left over, if one connection of the run is attached to
	// several nodes
	leg uint32
}

// A stream is all that the ledger knows about the messages of one sending connection. Messages are
// numbered from 1.
//
// Pages hold pageLen messages each. The stream frees a page when all its messages are settled. If a
// message has no page, everything about it is known, so the stream recognizes a repeat at any later
// time. An outcome "not delivered" holds a page back, because a delivery may still prove it false.
// A page that is held costs one byte a message. A freed page costs 8 bytes in all.
type stream struct {
	acks       bool
	sent       uint64 // number of messages so far, and so the last number
	inFlight   int
	connStarts []connStart // of the second and later connections
	pages      []*page     // nil if all its messages are settled
	lowPage    int         // the first page that is not nil, or len(pages)
	order      order
	legs       uint32 // the highest leg; 0 if there is only one
}

// connStart says where the messages of a new connection begin: after earliest-1 and not after
// latest. A driver that knows the exact number gives it twice.
type connStart struct{ earliest, latest uint64 }

const pageLen = 128

type page struct {
	states  [pageLen]state
	open    int // messages that are not settled, and those not sent yet
	flying  int // messages that have not landed, and those not sent yet
	flights *[pageLen]flight
}

// pagePool holds pages for reuse by any stream.
type pagePool struct {
	pages   []*page
	flights []*[pageLen]flight
}

// has reports whether a message with this number was sent.
func (s *stream) has(seq uint64) bool { return seq-1 < s.sent } // 0 wraps around

// low returns the lowest number whose delivery may still be news. It takes up to pageLen steps.
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

// settled reports whether no event can bring news about a message in this state.
func (s *stream) settled(v state) bool {
	if s.acks {
		return v&(delivered|ended) == delivered|ended
	}
	return v&delivered != 0
}

// landed reports whether a message in this state is no longer in flight.
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
// of news. If that was known already, mark changes nothing. landed says that the message was in
// flight until now. at is then its intended send time.
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

// flight returns the flight of a message that is in flight. It may also return that of a message
// that has landed. Otherwise it returns nil.
func (s *stream) flight(seq uint64) *flight {
	if p := s.pages[(seq-1)/pageLen]; p != nil && p.flights != nil {
		return &p.flights[(seq-1)%pageLen]
	}
	return nil
}

// overtake marks a message in flight as overtaken.
func (s *stream) overtake(seq uint64) { s.pages[(seq-1)/pageLen].states[(seq-1)%pageLen] |= overtaken }

// firstInFlight returns the lowest number in flight, or the number of the next message.
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

// eachInFlight calls f for every message in flight. f may end the message.
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

// pop removes and returns the last element. It returns the zero value if there is none.
func pop[T any](list *[]T) (v T) {
	if n := len(*list); n > 0 {
		v = (*list)[n-1]
		*list = (*list)[:n-1]
	}
	return v
}
