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

// assertEvery is how often the session asserts the bindings that a node has not accepted yet.
const assertEvery = time.Second

// errNowhere is the error of connect if there is no node to try.
var errNowhere = errors.New("client: no other node is known")

// keepers holds what the keepers share. A keeper is a goroutine that keeps one attachment of the
// session.
type keepers struct {
	s      *Session
	dialer *dialing.Dialer // calls Config.Dialer

	// Guarded by attachments.mu.
	running int // one for each attachment that exists or should exist
	seeking int // how many of them have no connection
}

// keep is a keeper. It maintains one attachment until Close, at first over c. If c is nil, it looks
// for a node that no other keeper has. The caller has counted the keeper in running, and in seeking
// if c is nil.
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
		if short++; former.lasted() { // a welcome alone does not prove that a node can be used
			short = 0
		}
		if c == nil {
			k.s.attachments.mu.Lock()
			k.seeking++
			k.s.attachments.mu.Unlock()
		}
	}
}

// grow starts another keeper if the session needs more attachments and no keeper is looking for
// one.
func (k *keepers) grow() {
	k.s.attachments.mu.Lock()
	defer k.s.attachments.mu.Unlock()
	if k.running < k.s.cfg.Attach && k.seeking == 0 && !k.s.closed() {
		k.running++
		k.seeking++
		k.s.kept.Go(func() { k.keep(nil) })
	}
}

// tend serves an attachment. When c's node drains, or wants another login, it returns the next
// connection. When c is dead or retired, or the session is closed, it returns nil, with the address
// to try first and the one to try last. short is how many connections before this one did not last.
func (k *keepers) tend(c *conn, short int) (next *conn, last, avoid string) {
	again := time.NewTicker(assertEvery)
	defer again.Stop()
	var goals []string // to try first
	var move <-chan time.Time
	var asked <-chan given // the credentials to move with
	asking, stopAsking := context.WithCancel(k.s.life)
	defer stopAsking()
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
			if k.s.attachments.first() == c { // one keeper is enough
				k.assert(k.s.life, c)
			}
		case within := <-c.reassert:
			stopSaying()
			ctx, stop := context.WithCancel(k.s.life)
			stopSaying = stop
			k.s.kept.Go(func() { k.sayAll(ctx, c, within) })
		case drain := <-c.drained:
			wait := k.onDrain(c, &drain)
			// two draining nodes must not move the session back and forth
			if short > 0 && !c.lasted() {
				wait += k.s.backoff(short)
			}
			goals, move = drain.Addrs, time.After(wait)
		case o := <-c.relogin:
			goals, move = []string{c.addr}, time.After(k.renewalWait(c, o))
		case <-move:
			// the other attachments are enough for now
			if c.draining.Load() && k.s.attachments.settled() {
				k.s.attachments.retire(c)
				return nil, "", c.addr
			}
			if asked == nil {
				asked = k.askCredentials(asking) // that may take long, and c is served meanwhile
			}
		case g := <-asked:
			asked = nil
			ask := &asker{k: k, ready: &g, within: k.s.cfg.DialTimeout}
			next, err := k.connect(k.s.life, k.s.nodes.candidates(goals, "", ""), c, ask)
			if err == nil {
				return next, "", ""
			}
			k.s.seldom.say(slog.LevelWarn, c.addr, "distmsg: cannot move to a new connection", "node", c.node, "error", err)
			move = time.After(k.s.backoff(try))
			try++
		}
	}
}

// afterDeath handles the cause of c's end. It returns the address to try first, and the one to try
// last.
func (k *keepers) afterDeath(c *conn) (last, avoid string) {
	if errors.Is(c.cause, errSilent) {
		return "", c.addr // if the node is still silent, an attempt takes a whole DialTimeout
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
// connections that it has closed itself. So another client has its secret and continues it. A new
// attachment here would cut off that client in turn.
func (k *keepers) giveWay(c *conn) {
	if k.s.attachments.first() != nil {
		return
	}
	k.s.cfg.Logger.Error("distmsg: another client has taken over the session; it has ended here", "node", c.node, "session", c.session)
	k.s.endLife()
}

// onDrain notifies the application and returns how long to wait before the move. That is a random
// part of the time that the node has announced, so that its sessions do not all move at once.
func (k *keepers) onDrain(c *conn, f *codec.Drain) time.Duration {
	wait := time.Duration(rand.Float64() * float64(f.Spread) * float64(time.Millisecond))
	k.s.cfg.Logger.Info("distmsg: the node drains", "node", c.node, "moving_in", wait)
	notify(k.s, k.s.cfg.OnDrain != nil, k.s.cb.drains,
		Drain{Addr: c.addr, Deadline: time.Duration(f.Deadline) * time.Millisecond, Addrs: f.Addrs})
	return wait
}

// seek finds a node for a keeper that has none. It pauses before each attempt, the first time as
// after that many failed attempts. It returns nil when the session is closed.
func (k *keepers) seek(last, avoid string, attempts int) *conn {
	news, began := k.s.nodes.changes(), time.Now()
	for try := attempts; k.s.pause(k.s.life, k.s.backoff(try), news); try++ {
		news = k.s.nodes.changes()
		c, err := k.connect(k.s.life, k.s.nodes.candidates(nil, last, avoid), nil, &asker{k: k})
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

// connect attaches to the first of the nodes that answers, asserts the bindings there if necessary,
// and lets sends go there. If old is not nil, the new connection replaces it.
func (k *keepers) connect(ctx context.Context, nodes []string, old *conn, credentials *asker) (*conn, error) {
	errs := []error{}
	for _, addr := range nodes {
		if over(ctx) != nil {
			break
		}
		key, ok := k.s.nodes.claim(addr)
		if !ok {
			continue
		}
		c, err := k.attach(ctx, addr, credentials)
		k.s.nodes.unclaim(key)
		if err != nil {
			errs = append(errs, err)
			if errors.Is(err, errCredentials) {
				break
			}
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

// assert binds the IDs that the session does not have at the node, under the epochs that they had
// (S10). If the registry cannot accept an ID now, the next assert tries again. If an ID is bound
// elsewhere by now, the session loses it.
func (k *keepers) assert(ctx context.Context, c *conn) { k.say(ctx, c, k.s.holds.looseOnes()) }

// sayAll asserts all bindings, because the node has requested that. It spreads them over within
// milliseconds.
func (k *keepers) sayAll(ctx context.Context, c *conn, within uint64) {
	const step = 100 // minimum milliseconds from one part to the next
	ids := k.s.holds.all()
	if len(ids) == 0 {
		return
	}
	k.s.cfg.Logger.Info("distmsg: the node asks for all bindings", "node", c.node, "ids", len(ids), "within_ms", within)
	frames := (len(ids) + c.frameful(ids) - 1) / c.frameful(ids)
	parts := max(1, min(frames, int(min(within, unlimited))/step))
	size := (len(ids) + parts - 1) / parts
	every := time.Duration(min(within, maxWithin)) * time.Millisecond / time.Duration(parts)
	// a random first pause, so that sessions do not assert all at once
	for wait := rand.N(every + 1); len(ids) > 0; wait = every {
		if within > 0 && !k.s.pause(ctx, wait, c.dead) || ctx.Err() != nil {
			return
		}
		n := min(size, len(ids))
		k.say(ctx, c, ids[:n])
		ids = ids[n:]
	}
}

// maxWithin is the maximum time, in milliseconds, that a reassert may ask for.
const maxWithin = 24 * 60 * 60 * 1000

// say asserts IDs: it binds them under their epochs.
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

// pause waits for d, or until wake is closed. It returns false if ctx or the session has ended
// first.
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
