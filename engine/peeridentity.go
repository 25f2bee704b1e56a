package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"distmsg/codec"
	"distmsg/engine/internal/peers"
)

// peerIdentity returns how this node describes itself on a link.
func (c *cluster) peerIdentity() codec.PeerIdentity {
	e := c.eng
	resume := hmac.New(sha256.New, e.cfg.Secret)
	resume.Write([]byte("distmsg resume fingerprint"))
	settings := []codec.Setting{
		{Name: settingResume, Value: e.cfg.ResumeWindow.String()},
		{Name: "max payload", Value: strconv.Itoa(e.cfg.MaxPayload)},
		{Name: "secret for resuming", Value: hex.EncodeToString(resume.Sum(nil)[:8])},
	}
	registry := e.dir.Identity()
	if registry.ID != "" {
		settings = append(settings, codec.Setting{Name: settingRegistry, Value: peers.RegistryText(registry.ID)})
	}
	if registry.Buckets != 0 {
		settings = append(settings, codec.Setting{Name: "registry buckets", Value: strconv.Itoa(registry.Buckets)})
	}
	id := codec.PeerIdentity{Since: e.since, Settings: settings}
	if c.peers.Joining() {
		id.Flags |= codec.PeerStarting
	}
	return id
}

// The names of settings that tests look for; see peer-protocol.md for all.
const (
	settingRegistry = "registry"
	settingResume   = "resume window"
)
