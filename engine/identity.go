package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	"distmsg/codec"
	"distmsg/engine/internal/peers"
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
	if e.cluster.peers.Joining() {
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
