package engine

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/peers"
	"distmsg/engine/internal/wake"
)

// A node that starts is announced as one that takes no sessions yet, so that the others link up with it. It takes clients
// when it has a link to all of them: a client that came before would hear unreachable for what is merely not linked yet.

const (
	// twinPause is the least time between two looks.
	twinPause = 50 * time.Millisecond
	// twinTimeout bounds the look at another node that is listed with this node's ID.
	twinTimeout = time.Second
)

// join waits until this node is linked to the others, or has waited for long enough, and announces that it takes clients.
// The error is ctx's, or says that another node has this node's ID.
func (c *cluster) join(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, peers.JoinTimeout)
	defer cancel()
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for !c.linkedUp() || len(c.twin) > 0 {
		select {
		case err := <-c.twin:
			return err
		case <-poll.C:
			continue
		case <-wait.Done():
		}
		if ctx.Err() != nil {
			return contextError(ctx)
		}
		c.eng.cfg.Logger.Warn("taking clients without a link to all nodes", "missing", some(c.unlinked()))
		break
	}
	c.eng.joining.Store(false)
	c.announceSoon()
	return nil
}

func (c *cluster) linkedUp() bool {
	c.mu.Lock()
	known := c.listed && !c.doubtful
	c.mu.Unlock()
	return known && len(c.unlinked()) == 0
}

// mayBeTwin notes a record with this node's ID. It may be this node's own, of before a stop, or
// that of a former self which was killed a moment ago; or a twin's. mu is held.
func (c *cluster) mayBeTwin(m discovery.Record) {
	if m.Incarnation == c.eng.incarnation.Load() {
		return
	}
	if c.alike = append(c.alike, m); len(c.alike) > maxAlike { // a list that is sorted has the newest last
		c.alike = c.alike[1:]
	}
	c.doubtful = true
	wake.Nudge(c.doubt)
}

// lookForTwins looks who answers for the records that have this node's ID, when they come and every
// second as long as they stand: another node may not be reachable at first.
func (c *cluster) lookForTwins(ctx context.Context) {
	again := time.NewTicker(twinTimeout)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.doubt:
		case <-again.C:
		}
		c.mu.Lock()
		alike := c.alike
		c.mu.Unlock()
		var looks sync.WaitGroup
		for _, m := range alike {
			looks.Go(func() { c.checkTwin(ctx, m) })
		}
		looks.Wait()
		c.mu.Lock()
		c.doubtful = c.doubtful && !slices.Equal(c.alike, alike)
		c.mu.Unlock()
		select { // anyone can raise a doubt, at any rate, with a hello under this node's name
		case <-ctx.Done():
		case <-time.After(twinPause):
		}
	}
}

// checkTwin looks whether another node with this node's ID lives where a record says. If it does,
// one of the two ends. While this node is joining, that is the one that comes later; later on it is
// the one that took the name first, as the other has started when this one could not be reached.
func (c *cluster) checkTwin(ctx context.Context, m discovery.Record) {
	f, err := c.askWho(ctx, m.PeerAddr)
	if err != nil || string(f.Node) != c.eng.cfg.NodeID {
		return // the record of one that is gone
	}
	e := c.eng
	since, own := f.Since, e.since
	if since == 0 { // it is of a version that does not say
		since = f.Incarnation
	}
	switch {
	case since == own || f.Incarnation == e.incarnation.Load(): // this node itself
	case e.joining.Load():
		if m.Draining && since > own {
			return // of two that start at once, one may go on
		}
		c.end(errors.New("engine: " + peers.NameTaken(e.cfg.NodeID, m.PeerAddr)))
	case m.Draining: // it joins, and will find this one; or it leaves
	case since > own:
		c.end(errors.New("engine: " + peers.NameTaken(e.cfg.NodeID, m.PeerAddr)))
	default:
		c.complain("a node that has taken this node's ID before is awake again, and is to end", "node", e.cfg.NodeID, "addr", m.PeerAddr)
	}
}

// askWho begins a handshake under a name of its own and returns what whoever answers says, if that
// knows the cluster's secret.
func (c *cluster) askWho(ctx context.Context, addr string) (f codec.PeerChallenge, err error) {
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return f, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	e := c.eng
	hello := c.self.Hello("probe-"+randomHex(8), e.incarnation.Load())
	if _, err := nc.Write(codec.AppendPeerHello(nil, &hello)); err != nil {
		return f, err
	}
	body, err := readFrame(nc)
	if err == nil {
		err = codec.DecodePeerChallenge(body, &f)
	}
	if err != nil {
		return f, err
	}
	if !c.self.Proves(f.Proof, peers.Accepted, peers.Transcript(&hello, &f)) {
		return f, errStranger
	}
	return f, nil
}

var errStranger = errors.New("engine: it does not know the cluster's secret")

// readFrame reads one frame of a handshake, in place of a loop.
func readFrame(nc net.Conn) (body []byte, err error) {
	var buf []byte
	for {
		body, n, err := codec.Split(buf, codec.MaxHelloFrame)
		if err != nil || n > 0 {
			return body, err
		}
		chunk := make([]byte, codec.MaxHelloFrame)
		if n, err = nc.Read(chunk); n == 0 {
			return nil, err
		}
		buf = append(buf, chunk[:n]...)
	}
}
