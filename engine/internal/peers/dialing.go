package peers

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"distmsg/discovery"
)

// For each other node, one goroutine keeps a link open. A list of nodes may hold many that are
// dead, or that accept and stay silent, so the number of attempts under way is bounded (S32). Good
// nodes answer at once. If a node does not answer soon, its attempt gives its quick place to the
// next node and continues in a slow place, if one is free. A node that has never answered begins in
// a slow place. So no node waits long for those that do not answer.

// MaxDials bounds the attempts under way: so many quick ones, and as many slow ones.
const MaxDials = 64

const (
	dialTimeout    = time.Second
	dialBackoffMin = 50 * time.Millisecond
	dialBackoffMax = time.Second
	// quickDial is how long an attempt counts as quick.
	quickDial = 250 * time.Millisecond
	// giveWay is how long a node waits for a link that the other node has to dial, before it dials
	// itself.
	giveWay = 500 * time.Millisecond
	// hopelessAfter is how often a node that was never linked must fail before its attempts are
	// slow from the beginning.
	hopelessAfter = 3
)

// dialing keeps links to the nodes that this one has to dial.
type dialing struct {
	// static
	peers       *Peers
	quick, slow chan struct{} // hold a token for each attempt under way

	stops map[string]func() // guarded by Peers.taking; by node, stops the dialling
}

func newDialing(p *Peers) *dialing {
	return &dialing{
		peers: p, quick: make(chan struct{}, MaxDials), slow: make(chan struct{}, MaxDials),
		stops: make(map[string]func()),
	}
}

// follow begins to dial new nodes and stops dialling nodes that are gone. The caller holds
// Peers.taking.
//
// A pair has one link, and the lower ID dials. But if the membership names only addresses, the
// lower one may not have found this node yet. Then both dial, and the higher one gives way first.
func (d *dialing) follow(ctx context.Context, running *sync.WaitGroup, nodes map[string]bool) {
	for node := range nodes {
		if d.stops[node] == nil && (d.dialsFirst(node) || d.peers.finder.isActive()) {
			dialCtx, stop := context.WithCancel(ctx)
			d.stops[node] = stop
			running.Go(func() { d.dial(dialCtx, node) })
		}
	}
	for node, stop := range d.stops {
		if !nodes[node] {
			stop()
			delete(d.stops, node)
			d.peers.Members.forget(node)
		}
	}
}

// dialsFirst reports whether of this node and another one, this one has to dial.
func (d *dialing) dialsFirst(node string) bool { return d.peers.self.Node < node }

// attempt is one attempt to link with a node.
type attempt struct {
	to       discovery.Record
	hopeless bool // the attempt is slow from the beginning
}

// dial keeps a link to one node until ctx ends.
func (d *dialing) dial(ctx context.Context, node string) {
	backoff, failures := dialBackoffMin, 0
	for ctx.Err() == nil {
		to, open := d.peers.Members.look(node)
		if open == nil && !d.dialsFirst(node) {
			select {
			case <-ctx.Done():
			case <-time.After(giveWay):
			}
			to, open = d.peers.Members.look(node)
		}
		// The node was not listed for a while, and the link has lived on. Or the other one has
		// dialled.
		if open != nil {
			open.Wait(ctx)
			continue
		}
		up, err := d.connect(ctx, attempt{to: to, hopeless: failures >= hopelessAfter})
		if err != nil && ctx.Err() == nil {
			d.peers.log.Debug("no link", "node", node, "addr", to.PeerAddr, "error", err)
			d.peers.Members.Failed(node, err.Error())
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
// ctx. up is how long the link was open.
func (d *dialing) connect(ctx context.Context, a attempt) (up time.Duration, err error) {
	place, ok := d.enter(ctx, a.hopeless)
	if !ok {
		return 0, ctx.Err()
	}
	inTime, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	moved := make(chan struct{}, 1)
	late := time.AfterFunc(quickDial, func() {
		if !d.moveOn(&place, a.hopeless) {
			giveUp(errSlow)
		}
		moved <- struct{}{}
	})
	l, err := d.shakeHands(inTime, a.to)
	if !late.Stop() {
		<-moved
	}
	<-place
	if err != nil {
		return 0, err
	}
	return l.Wait(ctx), nil
}

var errSlow = errors.New("engine: no answer yet, and other nodes wait to be dialled")

// enter waits for a place. It returns the channel from which the caller later takes the token.
func (d *dialing) enter(ctx context.Context, slow bool) (place chan struct{}, ok bool) {
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

// moveOn frees the quick place of an attempt. It returns false if no slow place is free.
func (d *dialing) moveOn(place *chan struct{}, slow bool) bool {
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

// shakeHands returns when the link is open or has ended. If ctx ends first, the attempt ends too.
func (d *dialing) shakeHands(ctx context.Context, to discovery.Record) (Link, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	nc, err := dialer.DialContext(ctx, "tcp", to.PeerAddr)
	if err != nil {
		return nil, err
	}
	return d.peers.engine.ShakeHands(ctx, nc, to)
}
