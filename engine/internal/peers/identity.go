package peers

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
)

// Two nodes check on every link what they claim to be (S28). They therefore also check it when one
// of them starts, or wakes after a stop. Nodes that are linked have the same registry and the same
// shared settings. Of two nodes with one name, the one that took it first ends: it must have been
// stopped or cut off, because otherwise the other could not have started.

// RegistryText stands for the registry's ID among the settings. Others may have written anything in
// its place, and a handshake has to have room for it.
func RegistryText(id string) string {
	const enough = 64
	if len(id) <= enough && discovery.CheckName(id) == nil {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// disagreement names the settings in which two nodes differ. It returns "" if they agree. It
// ignores settings that only one of them knows.
func disagreement(own, other *codec.PeerIdentity) string {
	var differs []string
	for _, mine := range own.Settings {
		for _, theirs := range other.Settings {
			if mine.Name == SettingSecret && knowsSecrets(own) && knowsSecrets(other) {
				break
			}
			if mine.Name == theirs.Name && !agree(mine.Name, mine.Value, theirs.Value) {
				differs = append(differs, fmt.Sprintf("%s %s there, %s here", mine.Name, theirs.Value, mine.Value))
			}
		}
	}
	return strings.Join(differs, "; ")
}

// SettingSecrets is the name of the setting that lists fingerprints of the secrets for resuming.
// The first is that of the secret that the node uses, and the others are of those that it accepts.
const SettingSecrets = "secrets for resuming"

// SettingSecret is the name of the setting with the only secret for resuming that a node has. It is
// for nodes that do not know SettingSecrets.
const SettingSecret = "secret for resuming"

func knowsSecrets(id *codec.PeerIdentity) bool {
	return slices.ContainsFunc(id.Settings, func(s codec.Setting) bool { return s.Name == SettingSecrets })
}

// agree reports whether two nodes with these values of a setting may be linked. Of secrets, each
// must accept the one that the other uses.
func agree(name, mine, theirs string) bool {
	if name != SettingSecrets {
		return mine == theirs
	}
	ours, others := strings.Fields(mine), strings.Fields(theirs)
	return len(ours) > 0 && len(others) > 0 && slices.Contains(others, ours[0]) && slices.Contains(ours, others[0])
}

// NameTaken is the error text with which a node ends because another one has its name.
func NameTaken(node, where string) string {
	return fmt.Sprintf("a node called %q already runs at %s: give one of the two another node ID", node, where)
}

// Rival is what becomes of the node of an open link when another one comes under its name.
type Rival uint8

// The outcomes.
const (
	// RivalGone says that the newcomer is the same process, or may take the link's place.
	RivalGone Rival = iota
	// RivalEnds says that the node of the link ends. It took the name first, and the other has
	// started without it.
	RivalEnds
	// RivalStays says that the link stays, and that the newcomer's node ends.
	RivalStays
	// RivalSilent says that the link stays for now. Nobody knows yet whether its node lives.
	RivalSilent
	// RivalAsked is RivalSilent, the first time. The caller pings the node of the link.
	RivalAsked
)

// startingFor is longer than a node starts.
const startingFor = JoinTimeout + time.Second

// Incumbent is the node of an open link. It belongs to the loop of the link. Times are in
// milliseconds on one clock of the caller's.
type Incumbent struct {
	Identity  codec.PeerIdentity
	Opened    int64 // when the link opened
	contested int64 // when another node of that name first came; 0: none has
}

// Contest decides between the node of an open link and one that comes under its name and has proved
// that it knows the secret. A node that is starting gives way to one that lives. Of two that serve,
// the one that took the name later stays. lastFrame is when the last frame came over the link.
func (i *Incumbent) Contest(comer *codec.PeerIdentity, now, lastFrame int64) Rival {
	starting := comer.Flags&codec.PeerStarting != 0
	young := i.Identity.Flags&codec.PeerStarting != 0 && now-i.Opened < startingFor.Milliseconds()
	switch {
	case comer.Since == 0 || i.Identity.Since == 0 || comer.Since == i.Identity.Since:
		return RivalGone
	case starting || comer.Since < i.Identity.Since && !young:
	case young: // it may be starting still; if not, it comes again, and says so
		return RivalGone
	default:
		return RivalEnds
	}
	switch {
	case i.contested == 0:
		i.contested = now
		return RivalAsked
	case lastFrame >= i.contested: // heard of since
		return RivalStays
	}
	return RivalSilent
}
