package peers

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/wake"
)

// Many nodes write the list of nodes, and each of them reads all of it. A node skips a record that
// is wrong and names it in its health. It also skips nodes beyond the number that clients can be
// sent.

const (
	// maxMembers bounds the other nodes that this one knows.
	maxMembers = codec.MaxMembers
	// maxNamed bounds the lines of health about nodes of one kind.
	maxNamed = 16
	// membersPause is the least time between two lists of nodes that the node sends to clients.
	membersPause = time.Second
)

// Members knows the other nodes of the cluster: which are listed, which have a link, and which must
// not have one. Any goroutine may use it, also loops, because it never waits.
type Members struct {
	// static
	peers *Peers
	news  chan struct{} // of capacity 1: the list of nodes that clients are sent may have changed

	mu       sync.Mutex
	known    bool                        // guarded by mu; the membership has given a list
	listed   map[string]discovery.Record // guarded by mu; by node, without this one
	links    map[string]openLink         // guarded by mu; by node
	refused  map[string]string           // guarded by mu; by node, why it must not be linked
	failed   map[string]string           // guarded by mu; by node, why the last attempt failed
	skipped  []string                    // guarded by mu; what is listed and left out, a line each
	beyond   int                         // guarded by mu; of that, how many nodes are too many
	listing  []codec.Member              // guarded by mu; what a client that comes now is told
	listings uint64                      // guarded by mu; how often that has changed
}

// openLink is an open link, and the incarnation of the node that it leads to.
type openLink struct {
	Link
	incarnation uint64
	announced   bool             // the node has announced itself on the link
	says        discovery.Record // what it has announced
}

func newMembers(p *Peers) *Members {
	return &Members{
		peers: p, news: make(chan struct{}, 1),
		listed: make(map[string]discovery.Record), links: make(map[string]openLink), refused: make(map[string]string),
		failed: make(map[string]string),
	}
}

// check divides a list into nodes and mere addresses. It skips the records that are wrong, and
// returns why.
func check(all []discovery.Record) (named, addrs []discovery.Record, wrong []string) {
	for _, r := range all {
		onlyAddr := discovery.Record{PeerAddr: r.PeerAddr, PeerName: r.PeerName}
		err := r.Check()
		switch {
		case err == nil:
			named = append(named, r)
		case r == onlyAddr && discovery.CheckAddr(r.PeerAddr) == nil:
			addrs = append(addrs, r)
		default:
			wrong = append(wrong, fmt.Sprintf("the node ignores a wrong record in the list of nodes: %v", err))
		}
	}
	return named, addrs, wrong
}

// set stores a new list of the other nodes, and what was wrong with it. It returns the nodes that
// it has accepted.
func (m *Members) set(others []discovery.Record, wrong []string) (nodes map[string]bool) {
	m.mu.Lock()
	chosen, nodes, beyond := m.choose(others)
	clear(m.listed)
	for _, r := range chosen {
		m.listed[r.ID] = r
	}
	maps.DeleteFunc(m.failed, func(node, _ string) bool { _, listed := m.listed[node]; return !listed })
	m.known = true
	news := m.skip(wrong, beyond)
	m.mu.Unlock()
	for _, line := range news {
		m.peers.log.Warn(line)
	}
	wake.Nudge(m.news)
	return nodes
}

// choose skips some nodes that are not known yet if there are too many. The caller holds mu.
func (m *Members) choose(others []discovery.Record) (chosen []discovery.Record, nodes map[string]bool, beyond int) {
	nodes = make(map[string]bool)
	take := func(r discovery.Record) {
		if !nodes[r.ID] && len(nodes) >= maxMembers {
			beyond++
			return
		}
		nodes[r.ID] = true
		chosen = append(chosen, r)
	}
	var unknown []discovery.Record
	for _, r := range others {
		_, listed := m.listed[r.ID]
		if _, linked := m.links[r.ID]; listed || linked {
			take(r)
		} else {
			unknown = append(unknown, r)
		}
	}
	for _, r := range unknown {
		take(r)
	}
	return chosen, nodes, beyond
}

// skip notes for health what the list of nodes lacks, and returns what is new of that. The caller
// holds mu.
func (m *Members) skip(wrong []string, beyond int) (news []string) {
	lines := some(wrong)
	if beyond > 0 {
		lines = append(lines, fmt.Sprintf("more than %d nodes are listed: the node ignores %d of them", maxMembers, beyond))
	}
	for _, line := range lines {
		if !slices.Contains(m.skipped, line) {
			news = append(news, line)
		}
	}
	m.skipped, m.beyond = lines, beyond
	return news
}

// some returns the first of many lines.
func some(lines []string) []string {
	slices.Sort(lines)
	if n := len(lines) - maxNamed; n > 0 {
		lines = append(lines[:maxNamed:maxNamed], fmt.Sprintf("and %d more like these", n))
	}
	return lines
}

// Up notes that a link to a node of that incarnation has opened.
func (m *Members) Up(node string, incarnation uint64, l Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[node] = openLink{Link: l, incarnation: incarnation}
	delete(m.refused, node)
	delete(m.failed, node)
	wake.Nudge(m.news)
	wake.Nudge(m.peers.finder.news)
}

// Announced notes what the node at the other end of a link says about itself. It skips what is
// wrong.
func (m *Members) Announced(node string, l Link, f *codec.Announce) {
	says := discovery.Record{ID: node, Addr: string(f.Addr), PeerAddr: string(f.PeerAddr), Draining: f.Flags&codec.AnnounceClosed != 0}
	if err := says.Check(); err != nil {
		m.peers.Complain("a node announces what is wrong", "node", node, "error", err)
		return
	}
	incarnation, ok := m.announced(node, l, says)
	if ok && f.Flags&codec.AnnounceLeaves != 0 {
		m.peers.finder.leaves(node, incarnation)
	}
	wake.Nudge(m.peers.finder.news)
}

// announced stores what a node says. It returns false if the link is not the open one.
func (m *Members) announced(node string, l Link, says discovery.Record) (incarnation uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	open, linked := m.links[node]
	if !linked || open.Link != l {
		return 0, false
	}
	open.announced, open.says = true, says
	m.links[node] = open
	return open.incarnation, true
}

// linked returns the open links.
func (m *Members) linked() map[string]openLink {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.links)
}

// Failed notes why an attempt to link with a node has failed, for health.
func (m *Members) Failed(node, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, listed := m.listed[node]; listed { // else strangers could make up names
		m.failed[node] = why
	}
}

// Down notes that the link to a node has ended.
func (m *Members) Down(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, node)
	wake.Nudge(m.peers.finder.news)
}

// Refuse notes that a node must not be linked, and why, for health and the log. It logs only news.
func (m *Members) Refuse(node, why string) {
	m.mu.Lock()
	news := m.refused[node] != why
	m.refused[node] = why
	wake.Nudge(m.news) // nobody is sent to a node that this one does not work with
	m.mu.Unlock()
	if news {
		m.peers.log.Warn("no link to a node whose settings differ: give all nodes the same settings", "node", node, "differs", why)
	}
}

// forget drops the reasons why there is no link to a node, because the node is no longer listed.
func (m *Members) forget(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.refused, node)
	delete(m.failed, node)
}

// look returns the record of a node, and the link to the node that the record is of. The link is
// nil if there is none.
func (m *Members) look(node string) (discovery.Record, Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.listed[node]
	if l, ok := m.links[node]; ok && l.incarnation == r.Incarnation {
		return r, l
	}
	return r, nil
}

// isKnown reports whether the membership has given a list.
func (m *Members) isKnown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known
}

// Gone reports whether another node under that incarnation is dead: there is no link to it, and the
// membership does not list it, or lists a later incarnation, or none (S16). If the membership names
// only addresses, the nodes that were found there are listed (see finder).
func (m *Members) Gone(node string, incarnation uint64) bool {
	mayLive := m.peers.finder.mayLive(node, incarnation)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known {
		return false // nobody has said yet who there is
	}
	r, listed := m.listed[node]
	l, linked := m.links[node]
	switch {
	case !listed && !linked && (m.beyond > 0 || mayLive):
		return false // it may be among those that were left out, or that were not found yet
	case linked:
		return l.incarnation != incarnation
	}
	// which is that of a list of peers
	return !listed || r.Incarnation > incarnation || r.Incarnation == 0
}

// takesClients reports whether clients may connect to a node. A node that serves only clients in
// its own process has no address for others.
func takesClients(r discovery.Record) bool { return !r.Draining && r.Addr != "" }

// Addrs returns the client addresses of the other nodes that take sessions, in random order.
func (m *Members) Addrs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var addrs []string
	for _, r := range m.listed {
		if takesClients(r) && m.refused[r.ID] == "" {
			addrs = append(addrs, r.Addr)
		}
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

// List returns the nodes as clients hear of them.
func (m *Members) List() []codec.Member {
	all, _ := m.list()
	return all
}

// list is List. It also counts how often the list has changed. A list that returns to an earlier
// state counts as another one, because some clients may have the list in between.
func (m *Members) list() (all []codec.Member, version uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if all = m.forClients(); !slices.Equal(all, m.listing) {
		m.listing = all
		m.listings++
	}
	return all, m.listings
}

// forClients returns this node and the others that take sessions, sorted. The caller holds mu.
func (m *Members) forClients() []codec.Member {
	out := m.peers.engine.ForClients()
	for _, r := range m.listed {
		if takesClients(r) && m.refused[r.ID] == "" {
			out = append(out, codec.Member{Node: r.ID, Addr: r.Addr})
		}
	}
	slices.SortFunc(out, func(a, b codec.Member) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// notifyClients sends all clients the list of nodes after it has changed, until ctx ends. A list
// may have 1,024 nodes and go to each of many clients. So it is sent once in membersPause at most,
// and a client may miss lists in between.
func (m *Members) notifyClients(ctx context.Context) {
	var sent uint64
	for {
		select {
		case <-m.news:
		case <-ctx.Done():
			return
		}
		all, version := m.list()
		if version == sent {
			continue
		}
		sent = version
		m.peers.engine.NotifyClients(all)
		select {
		case <-time.After(membersPause):
		case <-ctx.Done():
			return
		}
	}
}

// Member is another node, as this one knows it.
type Member struct {
	Node    string
	Listed  bool   // the membership lists it
	Linked  bool   // there is a link to it
	Refused string // why there must be no link to it
}

// Overview returns the other nodes that are listed or linked, sorted.
func (m *Members) Overview() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]Member)
	for node := range m.listed {
		all[node] = Member{Node: node, Listed: true, Refused: m.refused[node]}
	}
	for node := range m.links {
		v := all[node]
		v.Node, v.Linked = node, true
		all[node] = v
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Member) int { return strings.Compare(a.Node, b.Node) })
}

// Troubles names the listed nodes that there is no link to, and why if that is known, and addresses
// that two nodes announce.
func (m *Members) Troubles() (lines []string) {
	own, mute := m.peers.Record(), m.peers.finder.troubles()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, node := range m.unlinked() {
		line := fmt.Sprintf("no link to node %q", node)
		if why := m.refused[node]; why != "" {
			line += ": its settings differ: " + why
		} else if why := m.failed[node]; why != "" {
			line += ": " + why
		}
		lines = append(lines, line)
	}
	lines = append(some(lines), some(mute)...)
	lines = append(lines, m.skipped...)
	return append(lines, some(m.usedTwice(own))...)
}

// usedTwice names the addresses that two nodes announce. The caller holds mu.
func (m *Members) usedTwice(own discovery.Record) (lines []string) {
	users := make(map[string]string)
	for _, r := range append(slices.Collect(maps.Values(m.listed)), own) {
		for _, addr := range []string{r.Addr, r.PeerAddr} {
			if other, used := users[addr]; used && addr != "" && other != r.ID {
				a, b := min(other, r.ID), max(other, r.ID)
				lines = append(lines, fmt.Sprintf("nodes %q and %q both announce the address %s: give each its own", a, b, addr))
			}
			users[addr] = r.ID
		}
	}
	return lines
}

// withoutLink returns the listed nodes that there is no link to, sorted.
func (m *Members) withoutLink() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unlinked()
}

// unlinked is withoutLink. The caller holds mu.
func (m *Members) unlinked() []string {
	var nodes []string
	for node := range m.listed {
		if _, linked := m.links[node]; !linked {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}
