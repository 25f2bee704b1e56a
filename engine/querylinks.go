package engine

import (
	"context"
	"errors"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/query"
	"distmsg/routing"
)

// queryLinks is the links to other nodes as the query desk sees them.
type queryLinks struct{ cluster *cluster }

var _ query.Links = queryLinks{}

// newQueryLinks returns the links for questions to other nodes, or nil without a cluster.
func newQueryLinks(e *Engine) query.Links {
	if e.cluster == nil {
		return nil
	}
	return queryLinks{e.cluster}
}

// Peers returns the other nodes.
func (q queryLinks) Peers() []query.Peer {
	all := q.cluster.peers.Members.Overview()
	found := make([]query.Peer, 0, len(all))
	for _, m := range all {
		p := query.Peer{Node: m.Node}
		switch k := q.cluster.linkTo(m.Node); {
		case k == nil && m.Refused != "":
			p.Why = query.WhyNoLink + ": its settings differ: " + m.Refused
		case k == nil:
			p.Why = query.WhyNoLink
		case !k.answers:
			p.Why = query.WhyOld
		default:
			p.Link = k.handle
		}
		found = append(found, p)
	}
	return found
}

// linkPause is how long a frame for an operator waits before it tries again to find room on a link.
const linkPause = 10 * time.Millisecond

var (
	errLinkClosed = errors.New("the link has closed")
	errLinkFull   = errors.New("the link is full")
)

// Send queues frames for a link while less than half of its queue is used. So answers to operators
// never close a link, and leave room for messages.
func (q queryLinks) Send(ctx context.Context, link routing.Handle, frames []byte) error {
	l := q.cluster.eng.loops[link.Loop]
	for {
		queued := make(chan error, 1)
		l.post(func() {
			c := l.links.conn(link)
			switch {
			case c == nil:
				queued <- errLinkClosed
			case c.out.queued() >= c.out.maxPending/2:
				queued <- errLinkFull
			default:
				c.out.wroteControl(append(c.out.buf(), frames...))
				queued <- nil
			}
		})
		select {
		case err := <-queued:
			if !errors.Is(err, errLinkFull) {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(linkPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handleQuery takes a question of another node. Another goroutine answers it.
func (k *link) handleQuery(body []byte) error {
	var f codec.Query
	if err := codec.DecodeQuery(body, &f); err != nil {
		return err
	}
	c := k.conn
	if refusal := c.loop.eng.desk.HeardQuery(k.handle, &f); len(refusal) > 0 {
		c.out.wroteControl(append(c.out.buf(), refusal...))
	}
	return nil
}

// handleQueryPart takes a part of an answer to a question of this node.
func (k *link) handleQueryPart(body []byte) error {
	var f codec.QueryPart
	err := codec.DecodeQueryPart(body, &f)
	if err == nil {
		k.conn.loop.eng.desk.HeardPart(k.handle, &f)
	}
	return err
}
