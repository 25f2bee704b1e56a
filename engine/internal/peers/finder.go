package peers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/wake"
)

// A membership such as DNS names addresses, and does not say which nodes are there. Then the node
// asks each address, and the nodes that answer with the cluster's secret are members. So is every
// node that has a link to this one. What a member is doing, it announces on its link.
//
// Nobody withdraws a dead node. A member that has no link to this node and does not answer counts
// as dead after DeadAfter.

const (
	// DeadAfter is how long a member has had no link to this node, and given no answer, when it
	// counts as dead. It is less than the default resume window, after which the sessions of a dead
	// node end.
	DeadAfter = 5 * time.Second
	// settleFor is how long after its start a node takes no node for dead of which it has never
	// heard. DNS may name a node late.
	settleFor = time.Minute
	// askEvery is the pause between two rounds of questions.
	askEvery = time.Second
	// askJoining is the same while this node joins.
	askJoining = 100 * time.Millisecond
	// maxQuestions bounds the questions under way.
	maxQuestions = 128
)

// finder finds the nodes at addresses.
type finder struct {
	// static
	peers *Peers
	news  chan struct{} // of capacity 1: addresses or links have changed

	// unsure says that nodes may live of which this one has never heard.
	unsure atomic.Bool

	mu      sync.Mutex
	active  bool               // guarded by mu; the membership names addresses
	looked  bool               // guarded by mu; each address was asked at least once
	named   []discovery.Record // guarded by mu; the addresses
	found   []discovery.Record // guarded by mu; the members
	mute    []string           // guarded by mu; where no node answers, a line each
	leaving map[string]uint64  // guarded by mu; incarnations of nodes that said that they leave
	dead    map[string]uint64  // guarded by mu; incarnations of members that have died, or left

	// owned by the goroutine of run
	places      map[string]*place // by address
	sightings   map[string]*sighting
	last        time.Time     // of the last round
	settling    time.Duration // how much of settleFor is left
	incarnation uint64        // this node's, in the last round
}

// place is an address that the membership names.
type place struct {
	record discovery.Record // has only an address
	node   string           // the last that answered there
	err    error            // why no node answered the last question
}

// sighting is a member as this node knows it.
type sighting struct {
	record discovery.Record
	silent time.Duration // how long it has had no link, and not answered
	fresh  bool          // it has answered in this round
}

func newFinder(p *Peers) *finder {
	return &finder{
		peers: p, news: make(chan struct{}, 1), leaving: make(map[string]uint64), dead: make(map[string]uint64),
		places: make(map[string]*place), sightings: make(map[string]*sighting),
	}
}

// set stores the addresses that the membership names.
func (f *finder) set(addrs []discovery.Record) {
	f.mu.Lock()
	f.named, f.active = addrs, f.active || len(addrs) > 0
	f.mu.Unlock()
	wake.Nudge(f.news)
}

// isActive reports whether the membership names addresses.
func (f *finder) isActive() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.active
}

// members returns the nodes that were found. It returns false as long as addresses were named and
// not asked.
func (f *finder) members() (found []discovery.Record, ready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.found, f.looked || !f.active
}

// troubles returns a line for each address where no node answers.
func (f *finder) troubles() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mute)
}

// leaves notes that a node under that incarnation leaves the cluster. Any goroutine may call it.
func (f *finder) leaves(node string, incarnation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active {
		f.leaving[node] = incarnation
	}
}

// mayLive reports whether a node under that incarnation may live although it is no member. Any
// goroutine may call it.
func (f *finder) mayLive(node string, incarnation uint64) bool {
	if !f.unsure.Load() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	died, known := f.dead[node]
	return !known || incarnation > died
}

// bury takes a node out of the members. The caller holds mu.
func (f *finder) bury(s *sighting) {
	delete(f.sightings, s.record.ID)
	if len(f.dead) >= maxMembers { // nobody needs all of them
		clear(f.dead)
	}
	f.dead[s.record.ID] = s.record.Incarnation
}

// run asks all addresses, again and again, until ctx ends. It calls changed when the members have
// changed.
func (f *finder) run(ctx context.Context, changed func()) {
	again := time.NewTimer(askEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.news:
		case <-again.C:
		}
		if f.isActive() && f.look(ctx, time.Now()) {
			changed()
		}
		if f.peers.Joining() {
			again.Reset(askJoining)
		} else {
			again.Reset(askEvery)
		}
	}
}

// look is one round. It returns whether the members have changed.
func (f *finder) look(ctx context.Context, now time.Time) bool {
	passed := f.pass(now)
	f.follow()
	links := f.peers.Members.linked()
	f.hear(links, passed)
	f.ask(ctx, links)
	return ctx.Err() == nil && f.conclude(links)
}

// pass returns how much time has passed since the last round. A node that was stopped cannot say
// how long others were silent, so a long pause counts as a short one.
func (f *finder) pass(now time.Time) time.Duration {
	passed := time.Duration(0)
	if !f.last.IsZero() {
		passed = min(now.Sub(f.last), 2*askEvery)
	}
	f.last = now
	f.settling = max(0, f.settling-passed)
	own := f.peers.engine.Record().Incarnation
	if own != f.incarnation { // this node starts, or was stopped
		f.incarnation, f.settling = own, settleFor
	}
	return passed
}

// follow brings the places in line with the addresses that are named.
func (f *finder) follow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	named := make(map[string]bool, len(f.named))
	for _, r := range f.named {
		named[r.PeerAddr] = true
		if pl := f.places[r.PeerAddr]; pl != nil {
			pl.record = r
			continue
		}
		f.places[r.PeerAddr] = &place{record: r}
	}
	for addr := range f.places {
		if !named[addr] {
			delete(f.places, addr)
		}
	}
}

// hear learns from the open links which nodes live, and forgets nodes that have left.
func (f *finder) hear(links map[string]openLink, passed time.Duration) {
	for node, l := range links {
		s := f.sighting(node)
		s.silent, s.fresh = 0, true
		s.record.Incarnation = l.incarnation
		if !l.announced {
			continue
		}
		s.record.Addr, s.record.Draining = l.says.Addr, l.says.Draining
		if s.record.PeerAddr == "" {
			s.record.PeerAddr = l.says.PeerAddr
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for node, s := range f.sightings {
		if _, linked := links[node]; linked {
			continue
		}
		s.silent, s.fresh = s.silent+passed, false
		if f.leaving[node] == s.record.Incarnation {
			f.bury(s)
		}
	}
	for node := range f.leaving {
		if _, linked := links[node]; !linked {
			delete(f.leaving, node)
		}
	}
}

func (f *finder) sighting(node string) *sighting {
	s := f.sightings[node]
	if s == nil {
		s = &sighting{record: discovery.Record{ID: node}}
		f.sightings[node] = s
	}
	return s
}

// answer is what came of a question.
type answer struct {
	at  *place
	say codec.PeerChallenge
	err error
}

// ask asks the addresses of nodes that this one has no link to.
func (f *finder) ask(ctx context.Context, links map[string]openLink) {
	var asked []*answer
	for _, pl := range f.places {
		if _, linked := links[pl.node]; !linked && !f.isOwn(pl) {
			asked = append(asked, &answer{at: pl})
		}
	}
	places := make(chan struct{}, maxQuestions)
	var questions sync.WaitGroup
	for _, a := range asked {
		places <- struct{}{}
		questions.Go(func() {
			a.say, a.err = f.peers.askWho(ctx, a.at.record)
			<-places
		})
	}
	questions.Wait()
	slices.SortFunc(asked, func(a, b *answer) int { return strings.Compare(a.at.record.PeerAddr, b.at.record.PeerAddr) })
	for _, a := range asked {
		f.take(a)
	}
}

// isOwn reports whether this node itself is at an address.
func (f *finder) isOwn(pl *place) bool {
	self := f.peers.self.Node
	if pl.record.PeerAddr == f.peers.engine.Record().PeerAddr {
		pl.node = self
	}
	return pl.node == self && f.sightings[self] == nil
}

// take learns who is at an address. A node with this node's name that is not this process is a
// member, too: twins compares the two.
func (f *finder) take(a *answer) {
	pl := a.at
	if pl.err = a.err; a.err != nil {
		return
	}
	pl.node = string(a.say.Node)
	if pl.node == f.peers.self.Node && f.peers.isSelf(&a.say) {
		return
	}
	s := f.sighting(pl.node)
	if s.fresh && s.record.Incarnation >= a.say.Incarnation {
		return // it has several addresses
	}
	if former := f.places[s.record.PeerAddr]; former == nil || former.node != pl.node || former.err != nil {
		s.record.PeerAddr, s.record.PeerName = pl.record.PeerAddr, pl.record.PeerName
	}
	if s.record.Incarnation != a.say.Incarnation {
		s.record.Draining = a.say.Flags&codec.PeerStarting != 0
	}
	s.record.Incarnation = a.say.Incarnation
	s.silent, s.fresh = 0, true
}

// conclude drops members that are dead, and stores what the round has found. It returns whether the
// members have changed.
func (f *finder) conclude(links map[string]openLink) bool {
	var died []*sighting
	found := []discovery.Record{}
	for node, s := range f.sightings {
		if _, linked := links[node]; !linked && s.silent > DeadAfter {
			died = append(died, s)
			f.peers.log.Warn("a node has had no link and given no answer for so long that it counts as dead: start it again, or take its address out of DNS",
				"node", node, "addr", s.record.PeerAddr, "after", DeadAfter)
			continue
		}
		found = append(found, s.record)
	}
	f.mu.Lock()
	for _, s := range died {
		f.bury(s)
	}
	f.mu.Unlock()
	slices.SortFunc(found, func(a, b discovery.Record) int { return strings.Compare(a.ID, b.ID) })
	unsure, mute := f.settling > 0, []string(nil)
	for _, pl := range f.places {
		unsure = unsure || pl.node == ""
		if pl.err != nil && f.sightings[pl.node] == nil {
			mute = append(mute, fmt.Sprintf("the list of nodes names %s, where no node answers: %v", pl.record.PeerAddr, pl.err))
		}
	}
	f.unsure.Store(unsure)
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := !f.looked || !slices.Equal(found, f.found)
	f.found, f.mute, f.looked = found, mute, true
	return changed
}
