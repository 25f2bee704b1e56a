package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
)

// assertEvery is how often bindings are looked through that a node has yet to accept.
const assertEvery = time.Second

// errNowhere: there is no node to go to.
var errNowhere = errors.New("client: no other node is known")

// keep is the keeper goroutine: it sees to it that the session is attached, until Close.
func (s *Session) keep(c *conn) {
	defer close(s.kept)
	for c != nil {
		next := s.tend(c)
		if next == nil {
			next = s.reattach(c)
		}
		c = next
	}
}

// tend looks after an attached session. It returns the next connection when c's node drains, or nil when
// c is dead or the session is closed.
func (s *Session) tend(c *conn) *conn {
	again := time.NewTicker(assertEvery)
	defer again.Stop()
	var drain codec.Drain
	var move <-chan time.Time
	for try := 0; ; {
		select {
		case <-s.life.Done():
			return nil
		case <-c.dead:
			return nil
		case <-again.C:
			s.assert(s.life, c)
		case drain = <-c.drained:
			move = time.After(s.onDrain(c, &drain))
		case <-move:
			next, err := s.connect(s.life, s.candidates(drain.Addrs, "", c.addr))
			if err == nil {
				c.moved.Store(s.now())
				return next
			}
			s.cfg.Logger.Warn("distmsg: cannot leave a draining node", "node", c.node, "error", err)
			move = time.After(s.backoff(try))
			try++
		}
	}
}

// onDrain tells the application and returns how long to wait before moving: a random part of what
// the node says, so that its sessions do not all move at once.
func (s *Session) onDrain(c *conn, f *codec.Drain) time.Duration {
	wait := time.Duration(rand.Float64() * float64(f.Spread) * float64(time.Millisecond))
	s.cfg.Logger.Info("distmsg: the node drains", "node", c.node, "moving_in", wait)
	if s.cfg.OnDrain != nil {
		d := Drain{Addr: c.addr, Deadline: time.Duration(f.Deadline) * time.Millisecond, Addrs: f.Addrs}
		s.inbox.pushEvent(&s.events, func() { s.cfg.OnDrain(d) })
	}
	return wait
}

// reattach finds a new connection after old has died. It returns nil when the session is closed.
func (s *Session) reattach(old *conn) *conn {
	if s.closed() {
		return nil
	}
	last, avoid := old.addr, ""
	var f *fault
	if errors.As(old.cause, &f) && f.Fault == codec.FaultGoingAway {
		last, avoid = "", old.addr
	}
	_, changed := s.cfg.Membership.Nodes()
	for try := 0; s.pause(s.life, s.backoff(try), changed); try++ {
		_, changed = s.cfg.Membership.Nodes()
		nodes := s.candidates(nil, last, avoid)
		if avoid != "" {
			nodes = append(nodes, avoid)
		}
		c, err := s.connect(s.life, nodes)
		if err == nil {
			return c
		}
		if s.closed() {
			return nil
		}
		s.cfg.Logger.Warn("distmsg: not attached to any node", "try", try+1, "error", err)
	}
	return nil
}

// connect attaches to the first of the nodes that answers, asserts the bindings there if it has to, and
// makes the connection the current one.
func (s *Session) connect(ctx context.Context, nodes []string) (*conn, error) {
	errs := []error{}
	for _, addr := range nodes {
		c, err := s.attach(ctx, addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.assert(ctx, c)
		s.cfg.Logger.Info("distmsg: attached", "node", c.node, "addr", addr, "session", c.session,
			"resumed", c.resumed)
		s.publish(c)
		return c, nil
	}
	if len(errs) == 0 {
		return nil, errNowhere
	}
	return nil, errors.Join(errs...)
}

// assert binds again, under their epochs, the IDs that the session does not have at the node (S10).
// What the registry cannot take now stays for the next time; what is bound elsewhere by now is lost.
func (s *Session) assert(ctx context.Context, c *conn) {
	ids := s.holds.looseOnes()
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	c.ask(ctx, question{kind: codec.KindBind}, ids, func(i int, r codec.Result) {
		if kick, lost := s.holds.asserted(ids[i], r, c.gen); lost {
			s.kicked(kick)
		}
	})
}

// candidates lists the addresses to try: the preferred ones, the last one, the others known to
// discovery in random order, then those that only the nodes know of; without avoid.
func (s *Session) candidates(preferred []string, last, avoid string) []string {
	var addrs []string
	add := func(addr string) {
		if addr != "" && addr != avoid && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	for _, addr := range preferred {
		add(addr)
	}
	add(last)
	nodes, _ := s.cfg.Membership.Nodes()
	choose := discovery.Random()
	for nodes = slices.Clone(nodes); len(nodes) > 0; {
		i := choose.Pick(nodes, "", "")
		add(nodes[i].Addr)
		nodes = slices.Delete(nodes, i, i+1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		add(m.Addr)
	}
	return addrs
}

// backoff returns a random time below a ceiling that doubles with each try (full jitter).
func (s *Session) backoff(try int) time.Duration {
	ceiling := s.cfg.MaxBackoff
	if try < 16 {
		ceiling = min(ceiling, minBackoff<<try)
	}
	return rand.N(ceiling)
}

// pause sleeps, at the longest until wake is closed, and reports whether neither ctx nor the session
// ended meanwhile.
func (s *Session) pause(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
		return true
	case <-ctx.Done():
	case <-s.life.Done():
	}
	return false
}
