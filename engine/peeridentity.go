package engine

import (
	"encoding/hex"
	"strconv"
	"strings"

	"distmsg/codec"
	"distmsg/engine/internal/peers"
)

// peerIdentity returns how this node describes itself on a link.
func (c *cluster) peerIdentity() codec.PeerIdentity {
	e := c.eng
	var resume []string
	for _, key := range e.secrets.resume.All() {
		resume = append(resume, hex.EncodeToString(derive(key, "distmsg resume fingerprint")[:8]))
	}
	settings := []codec.Setting{
		{Name: settingResume, Value: e.cfg.ResumeWindow.String()},
		{Name: "max payload", Value: strconv.Itoa(e.cfg.MaxPayload)},
		{Name: peers.SettingSecrets, Value: strings.Join(resume, " ")},
	}
	if len(resume) == 1 { // older nodes know only this
		settings = append(settings, codec.Setting{Name: peers.SettingSecret, Value: resume[0]})
	}
	registry := e.dir.Identity()
	if registry.ID != "" {
		settings = append(settings, codec.Setting{Name: settingRegistry, Value: peers.RegistryText(registry.ID)})
	}
	if registry.Buckets != 0 {
		settings = append(settings, codec.Setting{Name: "registry buckets", Value: strconv.Itoa(registry.Buckets)})
	}
	id := codec.PeerIdentity{Since: e.since, Flags: codec.PeerAnswers, Settings: settings}
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
