package client

import (
	"math/rand/v2"
	"slices"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/internal/callback"
)

// nodes is what the session knows of the nodes. Guarded by attachments.mu.
type nodes struct {
	s *Session

	told  []codec.Member    // as a node told last; empty: none did
	names map[string]string // by address, as lists and welcomes say
	// the nodes (or addresses, where no name is known) that a keeper dials now
	dialling map[string]bool
	news     chan struct{} // closed and replaced when there are others to try
}

// changes returns a channel that is closed when the nodes have changed.
func (ns *nodes) changes() <-chan struct{} {
	ns.s.attachments.mu.Lock()
	defer ns.s.attachments.mu.Unlock()
	return ns.news
}

// tellNews wakes the keepers that look for a node. The caller holds attachments.mu.
func (ns *nodes) tellNews() {
	close(ns.news)
	ns.news = make(chan struct{})
}

// follow passes on the news of discovery until the session is closed.
func (ns *nodes) follow() {
	for {
		_, changed, ok := ns.found()
		if !ok {
			if !ns.s.pause(ns.s.life, ns.s.cfg.MaxBackoff, nil) {
				return
			}
			continue
		}
		if changed == nil {
			return
		}
		select {
		case <-changed:
		case <-ns.s.life.Done():
			return
		}
		ns.s.attachments.mu.Lock()
		ns.tellNews()
		ns.s.attachments.mu.Unlock()
	}
}

// found asks Config.Membership, which may be the application's, and can stop nothing but this look;
// ok is false if it did not return.
func (ns *nodes) found() (nodes []discovery.Node, changed <-chan struct{}, ok bool) {
	if f := callback.Apart(func() { nodes, changed = ns.s.cfg.Membership.Nodes() }); f != nil {
		ns.s.failed(f, "Config.Membership")
		return nil, nil, false
	}
	return nodes, changed, true
}

// heardOf takes in the list of nodes that a node told, in place of the one before. The caller holds
// attachments.mu.
func (ns *nodes) heardOf(told []codec.Member) {
	for _, m := range told {
		ns.names[m.Addr] = m.Node
	}
	if !slices.Equal(ns.told, told) {
		ns.told = told
		ns.tellNews()
	}
}

// key names the node behind an address as well as it is known. The caller holds attachments.mu.
func (ns *nodes) key(addr string) string {
	if name := ns.names[addr]; name != "" {
		return name
	}
	return addr
}

// taken reports whether another keeper has the node, or is about to. The caller holds
// attachments.mu.
func (ns *nodes) taken(addr string) bool {
	key := ns.key(addr)
	if ns.dialling[key] {
		return true
	}
	for c := range ns.s.attachments.conns {
		if !c.gone && (c.addr == addr || c.node == key) {
			return true
		}
	}
	return false
}

// claim reserves the node at addr for the caller to dial, until unclaim(key); false if another has
// it.
func (ns *nodes) claim(addr string) (key string, ok bool) {
	ns.s.attachments.mu.Lock()
	defer ns.s.attachments.mu.Unlock()
	if ns.taken(addr) {
		return "", false
	}
	key = ns.key(addr)
	ns.dialling[key] = true
	return key, true
}

func (ns *nodes) unclaim(key string) {
	ns.s.attachments.mu.Lock()
	defer ns.s.attachments.mu.Unlock()
	delete(ns.dialling, key)
}

// candidates lists the addresses to try: the preferred ones, the last one if it is still listed,
// the others in random order, avoid at the end. Listed is what a node told last, and what a
// Membership that changes says. The configured nodes count if no node has told any, or no
// connection is left that stays.
func (ns *nodes) candidates(preferred []string, last, avoid string) []string {
	found, changed, _ := ns.found()
	ns.s.attachments.mu.Lock()
	defer ns.s.attachments.mu.Unlock()
	var listed, resort []string
	for _, m := range ns.told {
		listed = append(listed, m.Addr)
	}
	for _, n := range found {
		if n.ID != "" {
			ns.names[n.Addr] = n.ID
		}
		switch {
		case changed != nil || len(ns.told) == 0:
			listed = append(listed, n.Addr)
		case !ns.s.attachments.hasSettled():
			resort = append(resort, n.Addr)
		}
	}
	shuffle(listed)
	shuffle(resort)
	known := append(listed, resort...)
	var addrs []string
	add := func(addr string) {
		if addr != "" && !slices.Contains(addrs, addr) && !ns.taken(addr) {
			addrs = append(addrs, addr)
		}
	}
	for _, addr := range preferred {
		add(addr)
	}
	if slices.Contains(known, last) {
		add(last)
	}
	for _, addr := range known {
		if addr != avoid {
			add(addr)
		}
	}
	if slices.Contains(known, avoid) {
		add(avoid)
	}
	return addrs
}

func shuffle(addrs []string) {
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
}
