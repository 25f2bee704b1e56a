package engine

import (
	"slices"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// handleEnded ends a session that has ended at another node.
func (k *link) handleEnded(body []byte) error {
	b, err := codec.DecodeEnded(body)
	if err == nil {
		k.cluster.eng.dir.HeardEnded(routing.SessionID(b))
	}
	return err
}

// handleClaim handles a claim: what another node has read in the registry about this one.
func (k *link) handleClaim(body []byte) error {
	var f codec.Claim
	err := codec.DecodeClaim(body, directory.MaxClaimIDs, &f)
	if err == nil {
		k.cluster.eng.dir.HeardClaim(&f)
	}
	return err
}

// A connection that has left its session, or has stepped back from it, is no longer attached. It is
// still notified when the session ends.

// stepAside records that a connection is about to be detached from its session but stays open.
func (c *conn) stepAside() {
	id := c.session.ID()
	c.loop.aside[id] = append(c.loop.aside[id], c)
	c.loop.eng.aside.Add(1)
}

// endAside is the reverse of stepAside.
func (c *conn) endAside() {
	id := c.session.ID()
	all := c.loop.aside[id]
	i := slices.Index(all, c)
	if i < 0 {
		return
	}
	c.loop.eng.aside.Add(-1)
	if all = slices.Delete(all, i, i+1); len(all) == 0 {
		delete(c.loop.aside, id)
		return
	}
	c.loop.aside[id] = all
}
