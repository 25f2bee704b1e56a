package engine

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
)

// A port is an address where the engine accepts connections. Anyone may connect, and a connection
// that sends nothing costs its client nothing. So connections that have not shown who they are have
// a budget of their own (S32): if one more comes, the node closes the oldest of them. The node
// never closes a connection that has shown who it is to make room for one that has not.
//
// A client shows who it is with a hello. Another node proves that it knows the cluster's secret.

// port counts the places of one listener.
type port struct {
	// static
	most     int // open sockets; 0: any number
	unproved int // of those, the ones that have not shown who they are
	// freed, of capacity 1, holds a token when a place may be free or a connection may now make
	// room.
	freed   chan struct{}
	shaking shaking // of connections that have something to do before a loop gets them

	sources sources

	mu   sync.Mutex
	open int // guarded by mu; open sockets
	// guarded by mu; of *conn: those that have not shown who they are, oldest first
	waiting   list.List
	closing   int    // guarded by mu; how many of them have been told to close
	displaced uint64 // guarded by mu; how many of them have been told to close so far

	from    map[netip.Addr]int // guarded by mu; by source: those that have shown who they are
	crowded uint64             // guarded by mu; how many were refused because of their source
}

// portPlace is the place of one connection at a port. port.mu guards all of it.
type portPlace struct {
	phase   placePhase
	waiting *list.Element // in port.waiting, from placeArriving until placeProved or placeFree
	shake   *shake        // its handshake on a goroutine, while that is under way
}

// placePhase says how far a connection has shown who it is.
type placePhase uint8

const (
	placeFree      placePhase = iota // no place: not admitted yet, or its socket has closed
	placeArriving                    // on its way to its loop
	placeShaking                     // has its handshake on a goroutine, and has no loop yet
	placeWaiting                     // with its loop, and has not shown who it is
	placeDisplaced                   // has not shown who it is, and has to make room
	placeProved                      // has shown who it is, and counts for its source
)

func newPort(most, unproved int) *port {
	return &port{most: most, unproved: unproved, freed: make(chan struct{}, 1), from: make(map[netip.Addr]int)}
}

// admit waits for a place for c. It returns false if ctx ends first.
func (p *port) admit(ctx context.Context, c *conn) bool {
	for !p.tryAdmit(c) {
		var later <-chan time.Time
		if wait := p.displace(); wait > 0 {
			later = time.After(wait)
		}
		select {
		case <-p.freed:
		case <-later:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (p *port) tryAdmit(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.most > 0 && p.open >= p.most || p.waiting.Len() >= p.unproved || p.shaking.full() {
		return false
	}
	p.open++
	c.port = p
	c.place = portPlace{phase: placeArriving, waiting: p.waiting.PushBack(c)}
	return true
}

// displace closes the oldest connection that has not shown who it is. If the places for
// handshakes are full, that is the oldest one with a handshake. It does nothing while an earlier
// one that has to make room is still open. wait says when it can displace a handshake that must
// have more time until then, or is 0.
func (p *port) displace() (wait time.Duration) {
	end, wait := p.oldest()
	if end != nil {
		end()
	}
	return wait
}

// oldest returns what ends the connection that has to make room, or nil and when there can be one.
func (p *port) oldest() (end func(), wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing > 0 {
		return nil, 0
	}
	for first := p.waiting.Front(); first != nil; first = first.Next() {
		c := first.Value.(*conn)
		switch {
		case c.place.phase == placeWaiting && !p.shaking.full():
			p.toDisplace(c)
			return func() { c.loop.post(c.displace) }, 0
		case c.place.phase == placeShaking:
			left := c.place.shake.timeLeft()
			if left <= 0 {
				p.toDisplace(c)
				return c.place.shake.stop, 0
			}
			if wait == 0 || left < wait {
				wait = left
			}
		}
	}
	return nil, wait
}

// toDisplace notes that c has to make room. The caller holds mu.
func (p *port) toDisplace(c *conn) {
	c.place.phase = placeDisplaced
	p.closing++
	p.displaced++
}

// hasLoop notes that c has reached its loop and may be displaced.
func (p *port) hasLoop(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.place.phase == placeArriving {
		c.place.phase = placeWaiting
	}
	wake.Nudge(p.freed)
}

// proved notes that c has shown who it is. It returns false if too many connections from the same
// source have done that. most is how many may, or 0 for any number.
func (p *port) proved(c *conn, most int) bool {
	source := sourceOf(c.remote)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case c.place.waiting == nil:
		return true // its socket has closed, and only its input is still handled
	case most > 0 && p.from[source] >= most:
		return false
	}
	p.leave(c, placeProved)
	p.from[source]++
	wake.Nudge(p.freed)
	return true
}

// reservePart is the part of a port's places that no single source address may take.
const reservePart = 16

// hasRoom reports whether one more connection from that source may stay. When few places are left,
// a source that holds more than those must come again later. Otherwise the connections of one
// client, which need only answer pings, could keep everybody else out.
func (p *port) hasRoom(source netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.most - (p.open - p.waiting.Len())
	if p.most == 0 || free > p.most/reservePart || p.from[source] <= free {
		return true
	}
	p.crowded++
	return false
}

// refusals returns how many connections were refused because of their source.
func (p *port) refusals() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.crowded
}

// closed frees the place of a socket that has closed.
func (p *port) closed(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	if source := sourceOf(c.remote); c.place.phase == placeProved {
		if p.from[source]--; p.from[source] == 0 {
			delete(p.from, source)
		}
	}
	p.leave(c, placeFree)
	wake.Nudge(p.freed)
}

// leave moves c to another phase, and out of waiting if it is there. The caller holds mu.
func (p *port) leave(c *conn, to placePhase) {
	if c.place.waiting != nil {
		p.waiting.Remove(c.place.waiting)
	}
	if c.place.phase == placeDisplaced {
		p.closing--
	}
	if c.place.shake != nil {
		p.shaking.running--
	}
	c.place = portPlace{phase: to}
}

// waitsFor reports whether c has yet to show who it is.
func (p *port) waitsFor(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.place.waiting != nil
}

// sockets returns how many sockets are open.
func (p *port) sockets() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// displacements returns how many connections had to make room for newer ones.
func (p *port) displacements() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.displaced
}

// displace closes a connection that has not shown who it is, to make room for a newer one.
func (c *conn) displace() {
	if c.gone() || !c.port.waitsFor(c) {
		return
	}
	what := "hello"
	if c.kind == linkConn {
		what = "proof"
	}
	c.dismiss("no " + what + " yet, and too many newer connections wait")
}

// dismiss closes a connection that has shown nothing. Its socket does not linger.
func (c *conn) dismiss(detail string) {
	if !c.closed() {
		c.fail(codec.FaultHelloTimeout, codec.ErrorClosing, 0, 0, detail)
		c.out.flush()
		c.teardown()
	}
	if !c.gone() {
		c.cut()
	}
}

// joins bounds the clients whose credentials a hook checks, or whose session the directory opens.
// They may be as many as those that have yet to say hello. The node does not displace them, because
// then no client would get in while the check is slow. It refuses one too many, which has to come
// again later. One source address gets at most half of what is free, so that others find room.
type joins struct {
	most int // static

	mu      sync.Mutex
	all     int                // guarded by mu
	from    map[netip.Addr]int // guarded by mu; by source
	refused uint64             // guarded by mu
}

// enter takes a place for a client from that address. It returns false if there is none.
func (j *joins) enter(source netip.Addr) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if free := j.most - j.all; free < 1 || j.from[source] > 0 && j.from[source] >= free {
		j.refused++
		return false
	}
	j.all++
	j.from[source]++
	return true
}

func (j *joins) leave(source netip.Addr) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all--
	if j.from[source]--; j.from[source] == 0 {
		delete(j.from, source)
	}
}

func (j *joins) refusals() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refused
}

// sourceOf returns the address that a client counts under. For IPv6 that is the network of 64 bits,
// because whoever has one address of it has them all.
func sourceOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.Is6() {
		network, err := ip.Prefix(64)
		if err == nil {
			return network.Addr()
		}
	}
	return ip
}
