package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"distmsg/codec"
	"distmsg/engine/internal/peers"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// identity is what this node says of itself on a link.
func (e *Engine) identity() codec.PeerIdentity {
	resume := hmac.New(sha256.New, e.cfg.Secret)
	resume.Write([]byte("distmsg resume fingerprint"))
	settings := []codec.Setting{
		{Name: settingResume, Value: e.cfg.ResumeWindow.String()},
		{Name: "max payload", Value: strconv.Itoa(e.cfg.MaxPayload)},
		{Name: "secret for resuming", Value: hex.EncodeToString(resume.Sum(nil)[:8])},
	}
	registry := e.registry.identity()
	if registry.ID != "" {
		settings = append(settings, codec.Setting{Name: settingRegistry, Value: peers.RegistryText(registry.ID)})
	}
	if registry.Buckets != 0 {
		settings = append(settings, codec.Setting{Name: "registry buckets", Value: strconv.Itoa(registry.Buckets)})
	}
	id := codec.PeerIdentity{Since: e.since, Settings: settings}
	if e.joining.Load() {
		id.Flags |= codec.PeerStarting
	}
	return id
}

// The names of settings that tests look for; see peer-protocol.md for all.
const (
	settingRegistry = "registry"
	settingResume   = "resume window"
)

// identity is that of the registry's data; zero if the registry cannot tell.
func (w *watchedRegistry) identity() routing.Identity {
	if r, ok := w.Registry.(routing.Identified); ok {
		return r.Identity()
	}
	return routing.Identity{}
}

// refuse notes that a node must not be linked, and why, for health and the log. It is logged when
// it is news.
func (c *cluster) refuse(node, why string) {
	c.mu.Lock()
	news := c.refused[node] != why
	c.refused[node] = why
	wake.Nudge(c.news) // nobody is sent to a node that this one does not work with
	c.mu.Unlock()
	if news {
		c.eng.cfg.Logger.Warn("a node is not linked, as the two do not agree: give all nodes the same", "node", node, "differs", why)
	}
}

// end makes Run return an error, before this node takes clients if it is still joining.
func (c *cluster) end(err error) {
	if !c.eng.joining.Load() {
		c.eng.fail(err)
		return
	}
	select {
	case c.twin <- err:
	default:
	}
}

// checkRegistry closes all links when the registry's data are no longer those that the links were
// made with.
func (e *Engine) checkRegistry(before string) (now string) {
	now = e.registry.identity().ID
	if now != before && before != "" && e.cluster != nil {
		e.cfg.Logger.Warn("the registry has other data than before: links are made anew", "before", before, "now", now)
		e.closeAll(slices.Clone(*e.cluster.open.Load()), codec.FaultReplaced, "the registry has other data than before")
	}
	return now
}
