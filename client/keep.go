package client

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"distmsg/codec"
	"distmsg/internal/dialing"
)

// assertEvery is how often bindings are looked through that a node has yet to accept.
const assertEvery = time.Second

// errNowhere: there is no node to go to.
var errNowhere = errors.New("client: no other node is known")

// keepers are the goroutines that keep the session attached, one for each attachment.
type keepers struct {
	s      *Session
	dialer *dialing.Dialer // calls Config.Dialer

	// Guarded by attachments.mu.
	running int // one for each attachment that exists or should exist
	seeking int // those of them that have no connection
}

// keep is a keeper goroutine: it sees to it that the session has one attachment, at first over c,
// until Close. Without c it looks for a node that none of the others has. The caller has counted it
// in keepers, and in seekers if c is nil.
func (k *keepers) keep(c *conn) {
	var last, avoid string
	for short := 0; ; { // connections in a row that have not lasted
		if c == nil {
			if c = k.seek(last, avoid, short); c == nil {
				return
			}
		}
		k.grow()
		former := c
		c, last, avoid = k.tend(c, short)
		if short++; former.lasted() { // a node that says welcome and closes has proved nothing
			short = 0
		}
		if c == nil {
			k.s.attachments.mu.Lock()
			k.seeking++
			k.s.attachments.mu.Unlock()
		}
	}
}

// grow starts another keeper if the session is to have more attachments and none is being looked
// for.
func (k *keepers) grow() {
	k.s.attachments.mu.Lock()
	defer k.s.attachments.mu.Unlock()
	if k.running < k.s.cfg.Attach && k.seeking == 0 && !k.s.closed() {
		k.running++
		k.seeking++
		k.s.kept.Go(func() { k.keep(nil) })
	}
}

// tend looks after an attachment. It returns the next connection when c's node drains; or nil when
// c is dead, retired, or the session is closed, with the address to try first and the one to try
// last. short is how many connections before this one did not last.
func (k *keepers) tend(c *conn, short int) (next *conn, last, avoid string) {
	again := time.NewTicker(assertEvery)
	defer again.Stop()
	var drain codec.Drain
	var move <-chan time.Time
	stopSaying := func() {}
	defer func() { stopSaying() }()
	for try := 0; ; {
		select {
		case <-k.s.life.Done():
			return nil, "", ""
		case <-c.retired:
			return nil, "", ""
		case <-c.dead:
			last, avoid = k.afterDeath(c)
			return nil, last, avoid
		case <-again.C:
			if k.s.attachments.first() == c { // one is enough
				k.assert(k.s.life, c)
			}
		case within := <-c.reassert:
			stopSaying()
			ctx, stop := context.WithCancel(k.s.life)
			stopSaying = stop
			k.s.kept.Go(func() { k.sayAll(ctx, c, within) })
		case drain = <-c.drained:
			wait := k.onDrain(c, &drain)
			// two nodes that drain must not toss the session to and fro
			if short > 0 && !c.lasted() {
				wait += k.s.backoff(short)
			}
			move = time.After(wait)
		case <-move:
			if k.s.attachments.settled() { // the others do for now
				k.s.attachments.retire(c)
				return nil, "", c.addr
			}
			next, err := k.connect(k.s.life, k.s.nodes.candidates(drain.Addrs, "", ""), c)
			if err == nil {
				return next, "", ""
			}
			k.s.seldom.say(slog.LevelWarn, c.addr, "distmsg: cannot leave a draining node", "node", c.node, "error", err)
			move = time.After(k.s.backoff(try))
			try++
		}
	}
}

// afterDeath says what follows from the way c ended: which address to try first, or last.
func (k *keepers) afterDeath(c *conn) (last, avoid string) {
	if errors.Is(c.cause, errSilent) {
		return "", c.addr // to find out that it still is would take a whole DialTimeout
	}
	var f *fault
	if !errors.As(c.cause, &f) {
		return c.addr, ""
	}
	switch f.Fault {
	case codec.FaultGoingAway:
		return "", c.addr
	case codec.FaultSessionEnded:
		k.s.attachments.begin(c)
	case codec.FaultReplaced:
		k.giveWay(c)
	}
	return c.addr, ""
}

// giveWay ends the session here if c was its only connection. This session replaces only
// connections that it has closed itself, so another client has its secret and goes on with it. To
// attach again would cut that one off in turn.
func (k *keepers) giveWay(c *conn) {
	if k.s.attachments.first() != nil {
		return
	}
	k.s.cfg.Logger.Error("distmsg: another client has taken over the session; this one is over", "node", c.node, "session", c.session)
	k.s.endLife()
}

// onDrain tells the application and returns how long to wait before moving: a random part of what
// the node says, so that its sessions do not all move at once.
func (k *keepers) onDrain(c *conn, f *codec.Drain) time.Duration {
	wait := time.Duration(rand.Float64() * float64(f.Spread) * float64(time.Millisecond))
	k.s.cfg.Logger.Info("distmsg: the node drains", "node", c.node, "moving_in", wait)
	notify(k.s, k.s.cfg.OnDrain != nil, k.s.cb.drains,
		Drain{Addr: c.addr, Deadline: time.Duration(f.Deadline) * time.Millisecond, Addrs: f.Addrs})
	return wait
}

// seek finds a node for a keeper that has none. The first pause is as long as it has become in that
// many attempts. It returns nil when the session is closed.
func (k *keepers) seek(last, avoid string, attempts int) *conn {
	news, began := k.s.nodes.changes(), time.Now()
	for try := attempts; k.s.pause(k.s.life, k.s.backoff(try), news); try++ {
		news = k.s.nodes.changes()
		c, err := k.connect(k.s.life, k.s.nodes.candidates(nil, last, avoid), nil)
		if err == nil {
			k.s.attachments.mu.Lock()
			k.seeking--
			k.s.attachments.mu.Unlock()
			return c
		}
		if k.s.closed() {
			return nil
		}
		if k.s.attachments.first() == nil {
			k.s.seldom.say(slog.LevelWarn, "", "distmsg: not attached to any node", "try", try+1, "for", time.Since(began), "error", err)
		} else {
			k.s.cfg.Logger.Debug("distmsg: not attached to another node", "try", try+1, "error", err)
		}
	}
	return nil
}

// connect attaches to the first of the nodes that answers, asserts the bindings there if it has to,
// and lets sends go there, in place of old if that is not nil.
func (k *keepers) connect(ctx context.Context, nodes []string, old *conn) (*conn, error) {
	errs := []error{}
	for _, addr := range nodes {
		if over(ctx) != nil {
			break
		}
		key, ok := k.s.nodes.claim(addr)
		if !ok {
			continue
		}
		c, err := k.attach(ctx, addr)
		k.s.nodes.unclaim(key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		k.assert(ctx, c)
		k.s.seldom.say(slog.LevelInfo, addr, "distmsg: attached", "node", c.node, "addr", addr, "session", c.session,
			"resumed", c.resumed)
		k.s.attachments.publish(c, old)
		return c, nil
	}
	if err := over(ctx); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, errNowhere
	}
	return nil, errors.Join(errs...)
}

// assert binds again, under their epochs, the IDs that the session does not have at the node (S10).
// What the registry cannot take now stays for the next time; what is bound elsewhere by now is
// lost.
func (k *keepers) assert(ctx context.Context, c *conn) { k.say(ctx, c, k.s.holds.looseOnes()) }

// sayAll asserts everything that is held, because the node asked for it, spread over within
// milliseconds.
func (k *keepers) sayAll(ctx context.Context, c *conn, within uint64) {
	const step = 100 // milliseconds, at least, from one part to the next
	ids := k.s.holds.all()
	if len(ids) == 0 {
		return
	}
	k.s.cfg.Logger.Info("distmsg: the node asks for all bindings", "node", c.node, "ids", len(ids), "within_ms", within)
	frames := (len(ids) + c.frameful(ids) - 1) / c.frameful(ids)
	parts := max(1, min(frames, int(min(within, unlimited))/step))
	size := (len(ids) + parts - 1) / parts
	every := time.Duration(min(within, maxWithin)) * time.Millisecond / time.Duration(parts)
	// sessions are not to speak all at once
	for wait := rand.N(every + 1); len(ids) > 0; wait = every {
		if within > 0 && !k.s.pause(ctx, wait, c.dead) || ctx.Err() != nil {
			return
		}
		n := min(size, len(ids))
		k.say(ctx, c, ids[:n])
		ids = ids[n:]
	}
}

// maxWithin bounds in milliseconds what is believed of a reassert.
const maxWithin = 24 * 60 * 60 * 1000

// say binds IDs under the epochs they have.
func (k *keepers) say(ctx context.Context, c *conn, ids []idEpoch) {
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, k.s.cfg.RequestTimeout)
	defer cancel()
	var strays []idEpoch
	c.ask(ctx, question{kind: codec.KindBind}, ids, func(i int, r codec.Result) {
		kick, lost, stray := k.s.holds.asserted(ids[i], r, c.gen)
		if lost {
			k.s.kicked(kick)
		}
		if stray {
			strays = append(strays, ids[i])
		}
	})
	if len(strays) > 0 {
		c.ask(ctx, question{kind: codec.KindUnbind}, strays, func(int, codec.Result) {})
	}
}

// backoff returns a random time below a ceiling that doubles with each try (full jitter).
func (s *Session) backoff(try int) time.Duration {
	ceiling := s.cfg.MaxBackoff
	if try < 16 {
		ceiling = min(ceiling, minBackoff<<try)
	}
	return rand.N(ceiling)
}

// pause sleeps, at the longest until wake is closed, and reports whether neither ctx nor the
// session ended meanwhile.
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
