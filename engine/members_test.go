package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/routing"
)

// A record that is wrong is left out: clients go on reading who there is, and health says what is
// wrong.
func TestWrongMember(t *testing.T) {
	t.Parallel()
	log := new(lines)
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	n := g.start("n1", 1, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	c := n.join("a")
	g.hub.mu.Lock()
	for id, addr := range map[string]string{
		"long": strings.Repeat("a", 300) + ":1", "bytes": "a\xff:1", "\xffid": "a:1", "ctrl\x01": "a:1", strings.Repeat("i", 256): "a:1", "": "a:1", "nowhere": "nowhere",
	} {
		g.hub.members[id] = discovery.Record{ID: id, Incarnation: 1, Addr: addr}
	}
	g.hub.members["n0"] = discovery.Record{ID: "n0", Incarnation: 1, Addr: "127.0.0.1:1"}
	g.hub.tell()
	g.hub.mu.Unlock()
	var told []codec.Member
	for len(told) == 0 {
		f, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if f.kind == codec.KindMembers {
			told, err = codec.DecodeMembers(f.body)
			c.decoded(err)
		}
	}
	if len(told) != 2 || told[0].Node != "n0" || told[1].Node != "n1" {
		t.Errorf("told of %q", told)
	}
	later := n.join("b")
	if got := later.welcome.Members; len(got) != 2 {
		t.Errorf("welcome names %q", got)
	}
	later.exchange("b", c, "a")
	if health := strings.Join(n.Health(), "\n"); strings.Count(health, "the node ignores a wrong record in the list of nodes: its ") != 7 ||
		!strings.Contains(health, "has 302 bytes, at most 255 are allowed") || !strings.Contains(health, `its ID is "\xffid", which is not UTF-8`) {
		t.Errorf("health:\n%s", health)
	}
	g.hub.mu.Lock()
	g.hub.tell()
	g.hub.mu.Unlock()
	n.eventually("it is logged", func() bool { return log.has("has 302 bytes") })
	log.mu.Lock()
	defer log.mu.Unlock()
	if n := strings.Count(log.b.String(), "has 302 bytes"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// Of thousands of nodes 1,024 are dialled and told of, those first that were known before. Whoever
// is left out is not taken for dead.
func TestTooManyMembers(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 2, 1)
	n := g.nodes[0]
	g.hub.mu.Lock()
	for i := range 3000 {
		id := fmt.Sprintf("m%04d", i) // they would dial this one
		g.hub.members[id] = discovery.Record{ID: id, Incarnation: 1, Addr: "127.0.0.1:1", PeerAddr: "127.0.0.1:1"}
	}
	g.hub.tell()
	g.hub.mu.Unlock()
	n.eventually("clients are told of as many nodes as they can be, n1 among them", func() bool {
		told := n.cluster.peers.Members.List()
		return len(told) == 1+codec.MaxMembers && slices.ContainsFunc(told, func(m codec.Member) bool { return m.Node == "n1" })
	})
	health := n.Health()
	if all := strings.Join(health, "\n"); len(health) > 48 || !strings.Contains(all, "more than 1024 nodes are listed: the node ignores 1977 of them") ||
		!strings.Contains(all, "and 1007 more like these") {
		t.Errorf("%d lines:\n%.2000s", len(health), all)
	}
	if n.Gone(routing.Presence{Node: "elsewhere", Incarnation: 1}) {
		t.Error("a node that may be left out counts as dead")
	}
	n.join("a").exchange("a", g.nodes[1].join("b"), "b")
}

// A node whose name or address others could not read does not start.
func TestNamesAreChecked(t *testing.T) {
	long := strings.Repeat("n", 256)
	for want, cfg := range map[string]Config{
		"engine: NodeID has 256 bytes":                          {NodeID: long},
		`engine: NodeID is "a\x00", which contains the control`: {NodeID: "a\x00"},
		"engine: Cluster has 256 bytes":                         {Cluster: long},
		"engine: Advertise has 258 bytes":                       {Advertise: long + ":1"},
		"engine: PeerAdvertise names no host":                   {PeerAdvertise: "0.0.0.0:1"},
		"engine: MaxPeerHandshakes is -1, want":                 {MaxPeerHandshakes: -1},
		"engine: MaxHandshakes is -1, want":                     {MaxHandshakes: -1},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A list of nodes that changes all the time is sent to each client once a second at most, and the
// latest one in the end.
func TestMembersThatChangeOften(t *testing.T) {
	t.Parallel()
	const changes = 50
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	n := g.start("n1", 1, nil)
	c := n.join("a")
	began := time.Now()
	move := func(port int) {
		g.hub.mu.Lock()
		g.hub.members["n2"] = discovery.Record{ID: "n2", Incarnation: 1, Addr: fmt.Sprintf("127.0.0.1:%d", port)}
		g.hub.tell()
		g.hub.mu.Unlock()
		n.settle()
	}
	for i := range changes {
		move(i + 1)
	}
	want := fmt.Sprintf("127.0.0.1:%d", changes)
	frames := c.toldOf("n2", want)
	if most := 2 + int(time.Since(began)/time.Second); frames > most {
		t.Errorf("%d lists of nodes in %v", frames, time.Since(began))
	}
	// Who has come in between hears of the list that all others have.
	move(changes + 1)
	later := n.join("b")
	move(changes)
	later.toldOf("n2", want)
}

// toldOf reads lists of nodes until a node is at an address, and returns how many there were.
func (c *client) toldOf(node, addr string) (lists int) {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("%v after %d lists of nodes, of which none has %s at %s in the end", err, lists, node, addr)
		}
		if f.kind != codec.KindMembers {
			continue
		}
		all, err := codec.DecodeMembers(f.body)
		c.decoded(err)
		lists++
		if slices.Contains(all, codec.Member{Node: node, Addr: addr}) {
			return lists
		}
	}
}
