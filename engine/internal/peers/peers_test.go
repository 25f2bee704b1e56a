package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// patience is how long a test waits for what has to happen.
const patience = 10 * time.Second

// host is the engine that a test has in place of one.
type host struct {
	record   discovery.Record // static
	shaking  chan string      // the nodes that are linked with
	notified chan []codec.Member
	failed   chan error
	stopping atomic.Bool
	links    sync.Map // by node, the link that ShakeHands returns
}

func (h *host) Record() discovery.Record { return h.record }

func (h *host) ForClients() []codec.Member {
	return []codec.Member{{Node: h.record.ID, Addr: h.record.Addr}}
}

func (h *host) NotifyClients(all []codec.Member) {
	select {
	case h.notified <- all:
	default:
	}
}

func (h *host) NotifyNodes(discovery.Record, bool) {}

func (h *host) Secure(nc net.Conn, _ discovery.Record) (net.Conn, error) { return nc, nil }

func (h *host) ShakeHands(ctx context.Context, nc net.Conn, to discovery.Record) (Link, error) {
	defer nc.Close()
	select {
	case h.shaking <- to.ID:
	case <-ctx.Done():
	}
	if l, ok := h.links.Load(to.ID); ok {
		return l.(Link), nil
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (h *host) Stopping() bool { return h.stopping.Load() }

func (h *host) Fail(err error) { h.failed <- err }

// lasting is a link that ends with its channel.
type lasting chan struct{}

func (l lasting) Wait(ctx context.Context) time.Duration {
	select {
	case <-l:
		return time.Minute
	case <-ctx.Done():
		return 0
	}
}

// directory is a membership of which a test says who is in it.
type directory struct {
	announced chan discovery.Record
	withdrawn atomic.Int32
	stuck     atomic.Bool   // it cannot be reached
	asked     chan struct{} // an announcement waits, because it is stuck
	lists     chan []discovery.Record
}

func (d *directory) Announce(ctx context.Context, r discovery.Record) error {
	if d.stuck.Load() {
		d.asked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	d.announced <- r
	return nil
}

func (d *directory) Withdraw(context.Context) error {
	d.withdrawn.Add(1)
	return nil
}

func (d *directory) Watch(ctx context.Context, f func([]discovery.Record)) {
	for {
		select {
		case all := <-d.lists:
			f(all)
		case <-ctx.Done():
			return
		}
	}
}

// newPeers is the side to others of a node called m, which is listed as none yet.
func newPeers() (*Peers, *host, *directory) {
	h := &host{
		record:  discovery.Record{ID: "m", Incarnation: 7, Addr: "127.0.0.1:1", PeerAddr: "127.0.0.1:2"},
		shaking: make(chan string, 100), notified: make(chan []codec.Member, 1), failed: make(chan error, 1),
	}
	d := &directory{announced: make(chan discovery.Record, 100), asked: make(chan struct{}, 1), lists: make(chan []discovery.Record)}
	return New(newSelf("m"), h, d, slog.New(slog.DiscardHandler)), h, d
}

// run has p run until the test ends.
func run(t *testing.T, p *Peers) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// next waits for what a channel brings.
func next[T any](t *testing.T, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("waiting for %s", what)
	}
	return v
}

// listen accepts connections, and closes them with the test.
func listen(t *testing.T, accepted func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			accepted(nc)
		}
	}()
	return l.Addr().String()
}

func record(id string, incarnation uint64, addr string) discovery.Record {
	return discovery.Record{ID: id, Incarnation: incarnation, Addr: addr, PeerAddr: addr}
}

// Of two nodes, the one with the lower ID dials. It stops when the other one is no longer listed,
// and its link lives on.
func TestWhoDials(t *testing.T) {
	p, h, d := newPeers()
	addr := listen(t, func(nc net.Conn) { nc.Close() })
	link := make(lasting)
	h.links.Store("z", link)
	run(t, p)
	d.lists <- []discovery.Record{record("a", 1, addr), record("m", 7, addr), record("z", 1, addr)}
	if node := next(t, "an attempt", h.shaking); node != "z" {
		t.Errorf("%s is dialled", node)
	}
	p.Members.Up("z", 1, link)
	d.lists <- []discovery.Record{record("a", 1, addr)}
	d.lists <- []discovery.Record{record("z", 1, addr)} // the dialler finds the link that is up
	if len(h.shaking) > 0 {
		t.Error("a node is dialled although its link is up")
	}
	close(link)
	p.Members.Down("z")
	for range 2 {
		if node := next(t, "an attempt when the link has ended", h.shaking); node != "z" {
			t.Errorf("%s is dialled", node)
		}
	}
}

// A quick attempt that is not answered becomes a slow one, if there is a place, and ends otherwise.
func TestPlacesForAttempts(t *testing.T) {
	p, h, _ := newPeers()
	d := p.dialing
	place, ok := d.enter(t.Context(), false)
	if !ok || len(d.quick) != 1 || !d.moveOn(&place, false) || len(d.quick) != 0 || len(d.slow) != 1 {
		t.Fatalf("%d quick attempts and %d slow ones", len(d.quick), len(d.slow))
	}
	for len(d.slow) < MaxDials {
		d.slow <- struct{}{}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := d.enter(ended, true); ok {
		t.Error("there is one more place for a slow attempt")
	}
	addr := listen(t, func(net.Conn) {})
	if _, err := d.connect(t.Context(), attempt{to: record("z", 1, addr)}); !errors.Is(err, errSlow) || len(d.quick) != 0 {
		t.Errorf("%v, with %d quick attempts", err, len(d.quick))
	}
	if node := next(t, "the attempt", h.shaking); node != "z" {
		t.Errorf("%s is dialled", node)
	}
}

// A node is announced as one that takes no clients until it has joined, and again when it has.
func TestJoin(t *testing.T) {
	p, _, d := newPeers()
	run(t, p)
	if r := next(t, "a record", d.announced); !r.Draining || !p.Joining() {
		t.Errorf("announced as %+v", r)
	}
	joined := make(chan error, 1)
	go func() { joined <- p.Join(t.Context()) }()
	d.lists <- []discovery.Record{record("a", 1, "127.0.0.1:1"), record("m", 7, "127.0.0.1:2")}
	d.lists <- []discovery.Record{record("a", 1, "127.0.0.1:1"), record("m", 7, "127.0.0.1:2")}
	if p.linkedUp() {
		t.Error("it counts as linked to all others without a link")
	}
	p.Members.Up("a", 1, make(lasting))
	if err := next(t, "the end of joining", joined); err != nil {
		t.Error(err)
	}
	if r := next(t, "a record", d.announced); r.Draining || p.Joining() {
		t.Errorf("announced as %+v", r)
	}
}

// While a node joins, the error of another one with its name ends Join, and later the node.
func TestEnd(t *testing.T) {
	p, h, _ := newPeers()
	why := errors.New("another one")
	p.End(why)
	p.End(errors.New("which nobody waits for"))
	if err := p.Join(t.Context()); !errors.Is(err, why) || !p.Joining() {
		t.Errorf("%v", err)
	}
	p.joining.Store(false)
	p.End(why)
	if err := next(t, "the end", h.failed); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// accepting answers as a node that goes under that name, since a time, at an address.
func accepting(t *testing.T, name string, since uint64) (addr string) {
	t.Helper()
	return listen(t, func(nc net.Conn) {
		defer nc.Close()
		b, err := readFrame(nc)
		if err != nil {
			return
		}
		self := newSelf(name, func(s *Self) {
			s.Identity = func() codec.PeerIdentity { return codec.PeerIdentity{Since: since} }
		})
		_, _ = nc.Write(Accept(self, since).Handle(codec.KindPeerHello, b).Send)
	})
}

// Of two nodes with one name, the later one ends while it joins. Of two that serve, the earlier
// does.
func TestTwins(t *testing.T) {
	for _, v := range []struct {
		name           string
		since          uint64
		joins, drains  bool // this node, and the other
		answers, ended bool
	}{
		{"a former self that is gone", 1, true, false, false, false},
		{"this node itself", 1000, true, false, true, false},
		{"an earlier one, while this node joins", 999, true, false, true, true},
		{"a later one, while this node joins", 1001, true, false, true, true},
		{"a later one that joins too", 1001, true, true, true, false},
		{"an earlier one that joins too", 999, true, true, true, true},
		{"a later one that serves", 1001, false, false, true, true},
		{"an earlier one that serves", 999, false, false, true, false},
		{"a later one that joins", 1001, false, true, true, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			p, h, _ := newPeers()
			p.joining.Store(v.joins)
			name := "m"
			if !v.answers {
				name = "somebody"
			}
			r := record("m", 5, accepting(t, name, v.since))
			r.Draining = v.drains
			p.twins.set([]discovery.Record{r, record("m", h.record.Incarnation, "127.0.0.1:1")})
			if len(p.twins.alike) != 1 || !p.twins.doubtful() {
				t.Fatalf("to be looked at: %v", p.twins.alike)
			}
			p.twins.look(t.Context())
			if p.twins.doubtful() {
				t.Error("it has looked at all, and does not say so")
			}
			var ended error
			select {
			case ended = <-h.failed:
			case ended = <-p.twin:
			default:
			}
			if (ended != nil) != v.ended || ended != nil && !strings.Contains(ended.Error(), `a node called "m" already runs at `+r.PeerAddr) {
				t.Errorf("it ends with %v", ended)
			}
		})
	}
}

// Nobody but a node that knows the secret is believed.
func TestTwinOfStranger(t *testing.T) {
	p, _, _ := newPeers()
	addr := listen(t, func(nc net.Conn) {
		defer nc.Close()
		if b, err := readFrame(nc); err == nil {
			self := newSelf("m", func(s *Self) { s.Secrets.Set([][]byte{[]byte("the secret of somebody else")}) })
			_, _ = nc.Write(Accept(self, 1).Handle(codec.KindPeerHello, b).Send)
		}
	})
	if _, err := p.askWho(t.Context(), discovery.Record{PeerAddr: addr}); !errors.Is(err, errStranger) {
		t.Errorf("%v", err)
	}
}

// An announcement ends one that waits for the membership. What comes behind the end is not
// announced.
func TestAnnouncements(t *testing.T) {
	p, h, d := newPeers()
	d.stuck.Store(true)
	first := make(chan struct{})
	go func() {
		defer close(first)
		p.Announcer.Announce(t.Context())
	}()
	next(t, "an announcement that waits", d.asked)
	d.stuck.Store(false)
	p.Announcer.Announce(t.Context())
	next(t, "the end of the older one", first)
	if r := next(t, "a record", d.announced); r.ID != "m" {
		t.Errorf("%+v", r)
	}
	h.stopping.Store(true)
	p.Announcer.Withdraw(t.Context())
	p.Announcer.Announce(t.Context())
	if d.withdrawn.Load() != 1 || len(d.announced) != 0 {
		t.Errorf("withdrawn %d times, and announced %d times after that", d.withdrawn.Load(), len(d.announced))
	}
}

// The load that a node announces is rough, so that it seldom changes.
func TestRoughLoad(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 7: 7, 8: 8, 9: 8, 10: 10, 15: 14, 1000: 896, 1023: 896, 1024: 1024, 15_000: 14_336} {
		if got := RoughLoad(n); got != want {
			t.Errorf("%d is roughly %d, want %d", n, got, want)
		}
	}
}

// Of too many nodes, those stay that were known before, or that are linked. Nobody who may have
// been left out is taken for dead.
func TestTooManyNodes(t *testing.T) {
	p, _, _ := newPeers()
	m := p.Members
	m.set([]discovery.Record{record("known", 1, "127.0.0.1:1")}, nil)
	m.Up("linked", 1, make(lasting))
	var all []discovery.Record
	for i := range 3000 {
		all = append(all, record(fmt.Sprintf("n%04d", i), 1, "127.0.0.1:1"))
	}
	nodes := m.set(append(all, record("known", 1, "127.0.0.1:1"), record("linked", 1, "127.0.0.1:1")), nil)
	if len(nodes) != maxMembers || !nodes["known"] || !nodes["linked"] {
		t.Errorf("%d nodes; the known one: %v, the linked one: %v", len(nodes), nodes["known"], nodes["linked"])
	}
	if m.Gone("n2999", 1) || m.Gone("n0000", 1) || m.Gone("linked", 1) || !m.Gone("linked", 2) {
		t.Error("gone or not gone, the wrong way round")
	}
	lines := m.Troubles()
	if all := strings.Join(lines, "\n"); !strings.Contains(all, "more than 1024 nodes are listed: the node ignores 1978 of them") || len(lines) > 3*maxNamed {
		t.Errorf("%d lines:\n%.1000s", len(lines), all)
	}
	if told := m.List(); len(told) != 1+maxMembers || !slices.IsSortedFunc(told, func(a, b codec.Member) int { return strings.Compare(a.Node, b.Node) }) {
		t.Errorf("clients are told of %d nodes", len(told))
	}
}

// A node is gone if nothing says that it lives.
func TestGone(t *testing.T) {
	p, _, _ := newPeers()
	m := p.Members
	if m.Gone("unknown", 1) {
		t.Error("nobody has said who there is, and a node is gone")
	}
	m.set([]discovery.Record{record("listed", 5, "127.0.0.1:1"), record("given", 0, "127.0.0.1:2"), record("linked", 5, "127.0.0.1:3")}, nil)
	m.Up("linked", 6, make(lasting))
	for _, v := range []struct {
		node        string
		incarnation uint64
		gone        bool
	}{
		// the list may be older
		{"unknown", 1, true}, {"listed", 4, true}, {"listed", 5, false}, {"listed", 6, false},
		{"given", 1, true}, {"linked", 6, false}, {"linked", 5, true}, {"linked", 7, true},
	} {
		if got := m.Gone(v.node, v.incarnation); got != v.gone {
			t.Errorf("%s under %d is gone: %v", v.node, v.incarnation, got)
		}
	}
	m.Down("linked")
	if m.Gone("linked", 6) || !m.Gone("linked", 4) {
		t.Error("without its link, the list counts")
	}
}

// Clients are sent to no node that must not be linked, that leaves, or that has no address for
// them.
func TestNodesForClients(t *testing.T) {
	p, h, d := newPeers()
	run(t, p)
	leaves := record("leaves", 1, "127.0.0.1:4")
	leaves.Draining = true
	bad := record("bad\x00", 1, "127.0.0.1:9")
	d.lists <- []discovery.Record{record("n", 1, "127.0.0.1:3"), leaves, bad, {ID: "inside", PeerAddr: "127.0.0.1:5"}, record("other", 1, "127.0.0.1:6")}
	if told := next(t, "a list", h.notified); len(told) != 3 {
		t.Errorf("clients are told of %v", told)
	}
	p.Members.Refuse("other", "max payload 1 there, 2 here")
	if addrs := p.Members.Addrs(); !slices.Equal(addrs, []string{"127.0.0.1:3"}) {
		t.Errorf("clients are sent to %q", addrs)
	}
	if told := next(t, "a list", h.notified); len(told) != 2 || told[0].Node != "m" || told[1].Node != "n" {
		t.Errorf("clients are told of %v", told)
	}
	lines := strings.Join(p.Members.Troubles(), "\n")
	for _, want := range []string{`no link to node "other": its settings differ: max payload 1 there, 2 here`, `no link to node "n"`, "the node ignores a wrong record in the list of nodes: its ID"} {
		if !strings.Contains(lines, want) {
			t.Errorf("health does not say %q:\n%s", want, lines)
		}
	}
	d.lists <- []discovery.Record{record("n", 1, "127.0.0.1:2")}
	d.lists <- []discovery.Record{record("n", 1, "127.0.0.1:2")}
	if lines := p.Members.Troubles(); !slices.Contains(lines, `nodes "m" and "n" both announce the address 127.0.0.1:2: give each its own`) {
		t.Errorf("%q", lines)
	}
}
