package engine

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// Two nodes check on every link what they claim to be (S28), and so also when one starts, or wakes
// after a stop. Nodes that are linked have the same registry and the same shared settings. Of two
// nodes with one name, the one that took it first ends: it must have been stopped or cut off,
// because otherwise the other could not have started.

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
		settings = append(settings, codec.Setting{Name: settingRegistry, Value: registryText(registry.ID)})
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

// registryText stands for the registry's ID. Others may have written anything in its place, and a
// handshake has to have room for it.
func registryText(id string) string {
	const enough = 64
	if len(id) <= enough && discovery.CheckName(id) == nil {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
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

// disagreement names the settings in which two nodes differ, or returns "". It ignores settings
// that only one of them knows.
func disagreement(own, other *codec.PeerIdentity) string {
	var differs []string
	for _, mine := range own.Settings {
		for _, theirs := range other.Settings {
			if mine.Name == theirs.Name && mine.Value != theirs.Value {
				differs = append(differs, fmt.Sprintf("%s %s there, %s here", mine.Name, theirs.Value, mine.Value))
			}
		}
	}
	return strings.Join(differs, "; ")
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

// rival is what becomes of an open link when a new one comes from a node of the same name.
type rival uint8

const (
	rivalNone   rival = iota // the new one is of the same process, or may take this one's place
	rivalEnds                // its node ends: it took the name first, and the other has started without it
	rivalStays               // it stays, and the new one's node ends
	rivalSilent              // it stays for now: nobody knows yet whether its node lives
)

// contest decides between the node of an open link and one that comes under its name. A node that
// is starting gives way to one that lives. Of two that serve, the one that took the name later
// stays. It is on the link's loop.
func (k *link) contest(c *conn, comer *codec.PeerIdentity) rival {
	starting := comer.Flags&codec.PeerStarting != 0
	young := k.identity.Flags&codec.PeerStarting != 0 && c.loop.now-k.opened < startingFor.Milliseconds()
	switch {
	case comer.Since == 0 || k.identity.Since == 0 || comer.Since == k.identity.Since:
		return rivalNone
	case starting || comer.Since < k.identity.Since && !young:
	case young: // it may be starting still; if not, it comes again, and says so
		return rivalNone
	default:
		return rivalEnds
	}
	switch {
	case k.contested == 0:
		k.contested = c.loop.now
		c.out.wroteControl(codec.AppendPing(c.out.buf(), uint64(c.loop.now)))
	case c.lastFrame >= k.contested: // heard of since
		return rivalStays
	}
	return rivalSilent
}

// startingFor is longer than a node starts.
const startingFor = joinTimeout + time.Second

// refuseName ends a link to a node whose name another one has. It sends this node's proof first, so
// that the other can trust the refusal.
func (k *link) refuseName(c *conn, where string) {
	if k.dialled {
		c.out.wroteControl(codec.AppendPeerProof(c.out.buf(), c.loop.eng.proof("dialled", k.transcript)))
	}
	k.cluster.complain("two nodes have one name, and one of them is refused", "node", k.node, "remote", c.remote, "other", where)
	c.close(codec.FaultNameTaken, nameTaken(k.node, where))
}

// nameTaken is the error text with which a node ends because another one has its name.
func nameTaken(node, where string) string {
	return fmt.Sprintf("a node called %q runs at %s already: give one of the two another node ID", node, where)
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
