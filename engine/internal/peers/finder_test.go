package peers

import (
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
)

// dummy answers at an address as a node of a name and an incarnation, as long as it is not mute.
type dummy struct {
	addr string
	node atomic.Pointer[Self]
	mute atomic.Bool
}

func startDummy(t *testing.T, name string, since uint64) *dummy {
	d := new(dummy)
	d.become(name, since)
	d.addr = listen(t, func(nc net.Conn) { go d.answer(nc) }) // who dials says nothing, and stays
	return d
}

func (d *dummy) answer(nc net.Conn) {
	defer nc.Close()
	if b, err := readFrame(nc); err == nil && !d.mute.Load() {
		self := d.node.Load()
		_, _ = nc.Write(Accept(self, self.Identity().Since).Handle(codec.KindPeerHello, b).Send)
	}
}

func (d *dummy) become(name string, since uint64) {
	d.node.Store(newSelf(name, func(s *Self) {
		s.Identity = func() codec.PeerIdentity { return codec.PeerIdentity{Since: since} }
	}))
}

// rounds lets a finder look at addresses, on a clock of the test's.
type rounds struct {
	*testing.T
	p   *Peers
	now time.Time
}

// look passes time, and makes one round with these addresses.
func (r *rounds) look(passed time.Duration, addrs ...string) {
	r.now = r.now.Add(passed)
	var all []discovery.Record
	for _, addr := range addrs {
		all = append(all, discovery.Record{PeerAddr: addr})
	}
	r.p.take(all)
	var running sync.WaitGroup
	r.p.finder.look(r.Context(), r.now)
	r.p.follow(r.Context(), &running)
	r.Cleanup(running.Wait)
}

// lists checks which nodes are members.
func (r *rounds) lists(when string, want ...string) {
	r.Helper()
	found, ready := r.p.finder.members()
	var got []string
	for _, m := range found {
		got = append(got, m.ID)
	}
	if !slices.Equal(got, want) || !ready {
		r.Errorf("%s: %q, want %q", when, got, want)
	}
}

func newRounds(t *testing.T) (*rounds, *host) {
	p, h, _ := newPeers()
	return &rounds{t, p, time.Unix(1_000_000, 0)}, h
}

// settle passes the time in which a node takes nobody for dead of whom it has never heard.
func (r *rounds) settle(addrs ...string) {
	r.p.finder.settling = min(r.p.finder.settling, askEvery)
	r.look(askEvery, addrs...)
}

// Members are the nodes that answer at the addresses and know the secret, without this one. Health
// names the other addresses, and nobody is taken for dead who may be there.
func TestFinder(t *testing.T) {
	r, _ := newRounds(t)
	a, z, own := startDummy(t, "a", 5), startDummy(t, "z", 6), startDummy(t, "m", 1000)
	stranger, silent := startDummy(t, "s", 7), startDummy(t, "q", 8)
	stranger.node.Load().Secrets.Set([][]byte{[]byte("the secret of somebody else")})
	silent.mute.Store(true)
	if _, ready := r.p.finder.members(); !ready {
		t.Error("a list of names waits for addresses")
	}
	r.p.take([]discovery.Record{{PeerAddr: a.addr}})
	if _, ready := r.p.finder.members(); ready || r.p.Settled() {
		t.Error("the list counts as known before anybody was asked")
	}
	// the last is this node's own
	addrs := []string{z.addr, a.addr, own.addr, stranger.addr, silent.addr, "127.0.0.1:2"}
	r.look(0, addrs...)
	r.lists("at first", "a", "z")
	found, _ := r.p.finder.members()
	if found[0] != (discovery.Record{ID: "a", Incarnation: 5, PeerAddr: a.addr}) {
		t.Errorf("%+v", found[0])
	}
	mute := strings.Join(r.p.finder.troubles(), "\n")
	if strings.Count(mute, "\n") != 1 || !strings.Contains(mute, stranger.addr+", where no node answers: engine: the node at this address does not know the cluster's secret") ||
		!strings.Contains(mute, silent.addr) {
		t.Errorf("mute:\n%s", mute)
	}
	r.settle(addrs...)
	if m := r.p.Members; m.Gone("unknown", 1) || m.Gone("a", 5) || !m.Gone("a", 4) {
		t.Errorf("gone or not gone, the wrong way round: %v, %v, %v", m.Gone("unknown", 1), m.Gone("a", 5), m.Gone("a", 4))
	}
	silent.mute.Store(false)
	r.look(askEvery, a.addr, z.addr, silent.addr)
	r.lists("when all answer", "a", "q", "z")
	if !r.p.Members.Gone("unknown", 1) {
		t.Error("who is at no address is not gone")
	}
}

// A member is dead when it has had no link and given no answer for DeadAfter. A time in which this
// node was stopped does not count.
func TestDeadMember(t *testing.T) {
	r, h := newRounds(t)
	a := startDummy(t, "a", 5)
	r.look(0, a.addr)
	a.mute.Store(true)
	for range DeadAfter / askEvery {
		r.look(askEvery, a.addr)
	}
	r.lists("silent for so long", "a")
	if r.p.Members.Gone("a", 5) || len(r.p.finder.troubles()) != 0 {
		t.Errorf("dead too soon; %q", r.p.finder.troubles())
	}
	r.look(askEvery, a.addr)
	r.lists("dead")
	if m := r.p.Members; !m.Gone("a", 5) || m.Gone("a", 6) || m.Gone("unknown", 1) || len(r.p.finder.troubles()) != 1 {
		t.Errorf("not dead, or too much is; %q", r.p.finder.troubles())
	}
	a.become("a", 6)
	a.mute.Store(false)
	r.look(askEvery, a.addr)
	r.lists("started again", "a")
	a.mute.Store(true)
	r.look(time.Hour, a.addr)
	r.lists("after a long stop of this node", "a")
	h.record.Incarnation++
	r.look(askEvery, a.addr)
	if r.p.Members.Gone("unknown", 1) {
		t.Error("a node that was stopped takes those for dead that may have come meanwhile")
	}
}

// A node with a link is a member, whatever the addresses are, and is what it announces. One that
// leaves is gone with its link. Another one is not.
func TestLinkedMembers(t *testing.T) {
	r, _ := newRounds(t)
	a := startDummy(t, "a", 5)
	links := map[string]lasting{"a": make(lasting), "z": make(lasting)}
	r.look(0, a.addr)
	r.p.Members.Up("a", 5, links["a"])
	r.p.Members.Up("z", 6, links["z"])
	r.p.Members.Announced("z", links["z"], &codec.Announce{Addr: []byte("192.0.2.9:7400"), PeerAddr: []byte("192.0.2.9:7402")})
	// not its link
	r.p.Members.Announced("z", links["a"], &codec.Announce{Addr: []byte("192.0.2.8:7400")})
	r.p.Members.Announced("a", links["a"], &codec.Announce{Flags: codec.AnnounceClosed, Addr: []byte("192.0.2.7:7400")})
	r.p.Members.Announced("a", links["a"], &codec.Announce{Addr: []byte("wrong")})
	r.look(askEvery, a.addr)
	r.lists("linked", "a", "z")
	if found, _ := r.p.finder.members(); found[0].Addr != "192.0.2.7:7400" || !found[0].Draining || found[0].PeerAddr != a.addr ||
		found[1] != (discovery.Record{ID: "z", Incarnation: 6, Addr: "192.0.2.9:7400", PeerAddr: "192.0.2.9:7402"}) {
		t.Errorf("%+v", found)
	}
	if addrs := r.p.Members.Addrs(); !slices.Equal(addrs, []string{"192.0.2.9:7400"}) {
		t.Errorf("clients are sent to %q", addrs)
	}
	r.settle(a.addr)
	a.mute.Store(true)
	r.p.Members.Announced("a", links["a"], &codec.Announce{Flags: codec.AnnounceClosed | codec.AnnounceLeaves})
	r.look(askEvery, a.addr)
	r.lists("about to leave", "a", "z")
	for node := range links {
		r.p.Members.Down(node)
	}
	r.look(askEvery, a.addr)
	r.lists("one has left", "z")
	if !r.p.Members.Gone("a", 5) || r.p.Members.Gone("z", 6) {
		t.Error("gone or not gone, the wrong way round")
	}
}

// Of two nodes that know each other by their addresses, the higher one dials too, because the other
// one may not have found it yet.
func TestHigherNodeDials(t *testing.T) {
	p, h, d := newPeers()
	a := startDummy(t, "a", 5)
	run(t, p)
	d.lists <- []discovery.Record{{PeerAddr: a.addr}}
	if node := next(t, "an attempt", h.shaking); node != "a" {
		t.Errorf("%s is dialled", node)
	}
}

// Another process with this node's name, at one of the addresses, is compared with this one.
func TestTwinAtAddress(t *testing.T) {
	r, _ := newRounds(t)
	twin := startDummy(t, "m", 999)
	r.look(0, twin.addr)
	r.p.twins.mu.Lock()
	defer r.p.twins.mu.Unlock()
	if len(r.p.twins.alike) != 1 || r.p.twins.alike[0].PeerAddr != twin.addr || r.p.twins.alike[0].Incarnation != 999 {
		t.Errorf("to be looked at: %+v", r.p.twins.alike)
	}
}
