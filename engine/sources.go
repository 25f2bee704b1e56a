package engine

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/limit"
)

// sources bounds what comes from one source address. It counts the handshakes that begin in a
// second, before the node does anything for a connection. It does not count those of load
// balancers, whose clients it does not know yet. The port knows how many connections there are.
type sources struct {
	terms *atomic.Pointer[nodeTerms] // static; nil: there is no limit

	mu      sync.Mutex
	buckets map[netip.Addr]limit.Bucket // guarded by mu; those that are not full
}

// mostSources bounds the addresses that the node tells apart.
const mostSources = 1 << 16

// mayShake uses one handshake of an address. It returns how long to wait if there is none.
func (s *sources) mayShake(source netip.Addr, now time.Duration) (wait time.Duration) {
	if s.terms == nil {
		return 0
	}
	rate := s.terms.Load().addressHandshakes
	if rate.PerSecond == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buckets) >= mostSources {
		s.forget(rate, now)
	}
	if s.buckets == nil {
		s.buckets = make(map[netip.Addr]limit.Bucket)
	}
	b := s.buckets[source]
	wait = b.Wait(rate, now)
	if wait == 0 {
		b.Take(rate, now, 1)
	}
	s.buckets[source] = b
	return wait
}

// forget forgets addresses that have been quiet, and all of them if there are none. The caller
// holds mu.
func (s *sources) forget(rate limit.Rate, now time.Duration) {
	for source, b := range s.buckets {
		if b.Full(rate, now) {
			delete(s.buckets, source)
		}
	}
	if len(s.buckets) >= mostSources {
		clear(s.buckets)
	}
}

// turnAway closes a connection whose address has begun too many handshakes. Without TLS, it says so
// first: the new socket takes so few bytes at once.
func (a *acceptor) turnAway(nc net.Conn, p *port, wait time.Duration) error {
	a.eng.accounts.Refused(limit.AddressHandshakes)
	if p.shaking.config == nil {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Millisecond))
		_, _ = nc.Write(codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultGoingAway, Flags: codec.ErrorClosing,
			Message: limitText(limit.AddressHandshakes, waitMillis(wait))}))
	}
	return nc.Close()
}
