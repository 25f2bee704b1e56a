package directory

import (
	"testing"

	"distmsg/routing"
)

// neighbours are links to two nodes, in their first incarnation.
type neighbours struct{ nobody }

func (neighbours) LinkTo(p routing.Presence) (link routing.Handle, ok bool) {
	return link, (p.Node == "n1" || p.Node == "n2") && p.Incarnation == 1
}

// What the registry says of a session, and what that means for who asks.
func TestStanding(t *testing.T) {
	d := office(t, Config{Remote: routing.NewTable()})
	d.peers = neighbours{}
	d.cfg.Gone = func(p routing.Presence) bool { return p.Node == "died" || p.Incarnation != 1 }
	at := func(nodes ...string) (p routing.SessionPresence) {
		for _, n := range nodes {
			p.Nodes = append(p.Nodes, routing.Presence{Node: n, Incarnation: 1, Serial: 1})
		}
		return p
	}
	former := routing.SessionPresence{Nodes: []routing.Presence{{Node: "n1", Incarnation: 7, Serial: 1}}}
	for _, tc := range []struct {
		name         string
		p            routing.SessionPresence
		want         standing
		alive, moves bool
	}{
		{"not said", routing.SessionPresence{Unknown: true}, unsaid, false, false},
		{"ended", routing.SessionPresence{Dead: true, Nodes: at("n1").Nodes}, ended, false, false},
		{"attached nowhere", at(), nowhere, false, true},
		{"all nodes dead", at("died"), onDead, false, false},
		{"a former self of a node", former, onDead, false, false},
		{"here, which is no link", at("n0"), onAlive, true, false},
		{"a node that cannot be reached", at("died", "far"), onAlive, true, false},
		{"a node with a link", at("far", "died", "n2"), onLink, true, true},
	} {
		got := d.standingOf(tc.p)
		if got != tc.want || got.alive() != tc.alive || moves(got) != tc.moves {
			t.Errorf("%s: standing %d, alive %v, moves %v; want %d, %v, %v",
				tc.name, got, got.alive(), moves(got), tc.want, tc.alive, tc.moves)
		}
	}
}

// A node that is alone knows the sessions of its own table, and nobody else's.
func TestKnownHere(t *testing.T) {
	d := office(t, Config{})
	own, other := routing.NewSessionID(), routing.NewSessionID()
	d.table.OpenSession(own, "")
	if !d.knownHere(own) || d.knownHere(other) || d.attached(own) || d.AttachedElsewhere(own) {
		t.Error("a session within its resume window is known, and attached nowhere")
	}
	if d.sessions.livesElsewhere(other) {
		t.Error("there is nobody else")
	}
}
