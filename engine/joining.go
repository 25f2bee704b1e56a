package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
)

// A node that starts is announced as one that takes no sessions yet, so that the others link up with it. It takes clients
// when it has a link to all of them: a client that came before would hear unreachable for what is merely not linked yet.

const (
	// joinTimeout bounds the wait for links: a node that is listed may be dead.
	joinTimeout = 2 * time.Second
	// twinTimeout bounds the look at another node that is listed with this node's ID.
	twinTimeout = time.Second
)

// join waits until this node is linked to the others, or has waited for long enough, and announces that it takes clients.
// The error is ctx's, or says that another node has this node's ID.
func (c *cluster) join(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, joinTimeout)
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
			return context.Cause(ctx)
		}
		c.eng.cfg.Logger.Warn("taking clients without a link to all nodes", "missing", c.unlinked())
		break
	}
	c.eng.joining.Store(false)
	c.announceSoon()
	return nil
}

func (c *cluster) linkedUp() bool {
	c.mu.Lock()
	known := c.listed && c.checks == 0
	c.mu.Unlock()
	return known && len(c.unlinked()) == 0
}

// suspicious reports whether a record with this node's ID may be another node's. A former self of this node, killed a
// moment ago and still listed, has its address as a rule. mu is held.
func (c *cluster) suspicious(m discovery.Record) bool {
	own := c.eng.member()
	return c.eng.joining.Load() && m.Incarnation != own.Incarnation && m.PeerAddr != own.PeerAddr &&
		(!m.Draining || m.Incarnation < own.Incarnation) // of two that start at once, one may go on
}

// checkTwin looks whether a node with this node's ID lives at another address. If so, this one must not start.
func (c *cluster) checkTwin(ctx context.Context, m discovery.Record) {
	node, err := c.askWho(ctx, m.PeerAddr)
	if err == nil && node == c.eng.cfg.NodeID { // else what is listed is the record of one that is gone
		select {
		case c.twin <- fmt.Errorf("engine: a node called %q runs at %s already: give one of the two another node ID", node, m.PeerAddr):
		default:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks--
}

// askWho begins a handshake under a name of its own and returns who answers, if that knows the cluster's secret.
func (c *cluster) askWho(ctx context.Context, addr string) (node string, err error) {
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	e := c.eng
	hello := e.peerHello("probe-"+randomHex(8), e.incarnation.Load())
	if _, err := nc.Write(codec.AppendPeerHello(nil, &hello)); err != nil {
		return "", err
	}
	var f codec.PeerChallenge
	body, err := readFrame(nc)
	if err == nil {
		err = codec.DecodePeerChallenge(body, &f)
	}
	if err != nil {
		return "", err
	}
	if !e.proves(f.Proof, "accepted", transcript(&hello, &f)) {
		return "", errStranger
	}
	return string(f.Node), nil
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
