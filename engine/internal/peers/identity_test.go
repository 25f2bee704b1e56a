package peers

import (
	"testing"

	"distmsg/codec"
)

// One node comes under the name of another one that has an open link.
func TestContest(t *testing.T) {
	const now, opened = 10_000, 9_000
	old := opened - startingFor.Milliseconds()
	for _, v := range []struct {
		name      string
		incumbent codec.PeerIdentity
		opened    int64
		comer     codec.PeerIdentity
		// when it comes, when it comes again, and when the link has been heard of meanwhile
		first, then, last Rival
	}{
		{"a newer incarnation of the same process", codec.PeerIdentity{Since: 5}, opened, codec.PeerIdentity{Since: 5}, RivalGone, RivalGone, RivalGone},
		{"a node that does not say", codec.PeerIdentity{Since: 5}, opened, codec.PeerIdentity{}, RivalGone, RivalGone, RivalGone},
		{"in place of one that does not say", codec.PeerIdentity{}, opened, codec.PeerIdentity{Since: 5}, RivalGone, RivalGone, RivalGone},
		{"a later node that serves", codec.PeerIdentity{Since: 5}, opened, codec.PeerIdentity{Since: 6}, RivalEnds, RivalEnds, RivalEnds},
		{"a later node that starts", codec.PeerIdentity{Since: 5}, opened, codec.PeerIdentity{Since: 6, Flags: codec.PeerStarting}, RivalAsked, RivalSilent, RivalStays},
		{"an earlier node that serves", codec.PeerIdentity{Since: 5}, opened, codec.PeerIdentity{Since: 4}, RivalAsked, RivalSilent, RivalStays},
		{"an earlier node, while the other is starting", codec.PeerIdentity{Since: 5, Flags: codec.PeerStarting}, opened, codec.PeerIdentity{Since: 4}, RivalGone, RivalGone, RivalGone},
		{"an earlier node, when the other has started", codec.PeerIdentity{Since: 5, Flags: codec.PeerStarting}, old, codec.PeerIdentity{Since: 4}, RivalAsked, RivalSilent, RivalStays},
		{"a later node, while the other is starting", codec.PeerIdentity{Since: 5, Flags: codec.PeerStarting}, opened, codec.PeerIdentity{Since: 6}, RivalGone, RivalGone, RivalGone},
		{"a later node, when the other has started", codec.PeerIdentity{Since: 5, Flags: codec.PeerStarting}, old, codec.PeerIdentity{Since: 6}, RivalEnds, RivalEnds, RivalEnds},
		{"two that start", codec.PeerIdentity{Since: 5, Flags: codec.PeerStarting}, opened, codec.PeerIdentity{Since: 6, Flags: codec.PeerStarting}, RivalAsked, RivalSilent, RivalStays},
	} {
		i := Incumbent{Identity: v.incumbent, Opened: v.opened}
		first := i.Contest(&v.comer, now, now-1)
		then := i.Contest(&v.comer, now+1, now-1)
		last := i.Contest(&v.comer, now+2, now+1)
		if first != v.first || then != v.then || last != v.last {
			t.Errorf("%s: %d, then %d, and at last %d; want %d, %d, %d", v.name, first, then, last, v.first, v.then, v.last)
		}
	}
}
