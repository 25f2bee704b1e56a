package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"distmsg/discovery"
)

// One goroutine for each other node keeps a link up to it. A list of nodes may hold many that are
// dead, or that accept and stay silent, so the attempts under way at once are bounded (S32). Good
// nodes answer at once. An attempt that is not answered soon gives its place to the next node, and
// goes on in one of the places for slow ones, if there is any. A node that has never answered
// begins there. So nobody waits long for those that do not answer.

const (
	dialTimeout    = time.Second
	dialBackoffMin = 50 * time.Millisecond
	dialBackoffMax = time.Second
	// maxDials bounds the attempts under way, the quick and the slow ones each.
	maxDials = 64
	// quickDial is how long an attempt is a quick one.
	quickDial = 250 * time.Millisecond
	// hopelessAfter is how often a node that was never linked has to fail for its attempts to be
	// slow from the beginning.
	hopelessAfter = 3
)

// dialling has a token for each attempt under way.
type dialling struct{ quick, slow chan struct{} }

func newDialling() dialling {
	return dialling{quick: make(chan struct{}, maxDials), slow: make(chan struct{}, maxDials)}
}

// attempt is one attempt to link with a node.
type attempt struct {
	cluster  *cluster
	to       discovery.Record
	hopeless bool // it is slow from the beginning
}

// dial keeps a link to one node up until ctx ends.
func (c *cluster) dial(ctx context.Context, node string) {
	backoff, failures := dialBackoffMin, 0
	for ctx.Err() == nil {
		c.mu.Lock()
		m, open := c.members[node], c.links[node]
		c.mu.Unlock()
		if open != nil && open.incarnation == m.Incarnation { // the node was not listed for a while, and the link has lived on
			open.wait(ctx)
			continue
		}
		up, err := c.connect(ctx, attempt{cluster: c, to: m, hopeless: failures >= hopelessAfter})
		if err != nil && ctx.Err() == nil {
			c.eng.cfg.Logger.Debug("no link", "node", node, "addr", m.PeerAddr, "error", err)
		}
		if up > 0 {
			failures = -1 << 31 // it is a node: its attempts stay quick
		}
		failures++
		if up > dialBackoffMax { // a dial or a handshake that has taken as long proves nothing
			backoff = dialBackoffMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(backoff)):
		}
		backoff = min(2*backoff, dialBackoffMax)
	}
}

// connect links with a node, and waits until the link, or ctx, has ended. A link does not end with
// ctx. up is for how long the link was open.
func (c *cluster) connect(ctx context.Context, a attempt) (up time.Duration, err error) {
	place, ok := c.dialling.enter(ctx, a.hopeless)
	if !ok {
		return 0, ctx.Err()
	}
	inTime, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	moved := make(chan struct{}, 1)
	late := time.AfterFunc(quickDial, func() {
		if !c.dialling.moveOn(&place, a.hopeless) {
			giveUp(errSlow)
		}
		moved <- struct{}{}
	})
	k, err := a.shakeHands(inTime)
	if !late.Stop() {
		<-moved
	}
	<-place
	if err != nil {
		return 0, err
	}
	return k.wait(ctx), nil
}

var errSlow = errors.New("engine: no answer yet, and other nodes wait to be dialled")

// enter waits for a place, and returns the channel to take the token from afterwards.
func (d *dialling) enter(ctx context.Context, slow bool) (place chan struct{}, ok bool) {
	place = d.quick
	if slow {
		place = d.slow
	}
	select {
	case place <- struct{}{}:
		return place, true
	case <-ctx.Done():
		return nil, false
	}
}

// moveOn gives the quick place of an attempt to others. It returns false if there is no slow one.
func (d *dialling) moveOn(place *chan struct{}, slow bool) bool {
	if slow {
		return true
	}
	select {
	case d.slow <- struct{}{}:
		<-*place
		*place = d.slow
		return true
	default:
		return false
	}
}

// shakeHands returns the link when it is open or has ended. If ctx ends first, so does the attempt.
func (a *attempt) shakeHands(ctx context.Context) (*link, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	nc, err := dialer.DialContext(ctx, "tcp", a.to.PeerAddr)
	if err != nil {
		return nil, err
	}
	e, k := a.cluster.eng, newLink(a.cluster)
	k.dialled, k.node = true, a.to.ID
	c := newConn(nc.RemoteAddr(), e.cfg.MaxPending)
	c.link = k
	e.dialled.Add(1)
	if err := e.enroll(nc, c); err != nil {
		e.dialled.Add(-1)
		return nil, err
	}
	select {
	case <-k.up:
	case <-k.ended:
	case <-ctx.Done():
		c.loop.post(func() {
			if c.state == stateHello {
				c.dismiss("no answer yet, and other nodes wait to be dialled")
			}
		})
		return nil, context.Cause(ctx)
	}
	return k, nil
}
