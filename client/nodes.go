package client

import (
	"math/rand/v2"
	"slices"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/internal/callback"
)

// nodes holds what the session knows about the nodes. Guarded by attachments.mu.
type nodes struct {
	s *Session

	told  []codec.Member    // the latest list from a node; empty if there is none
	names map[string]string // by address, from lists and welcomes
	// the nodes that a keeper is dialling now, by address if the name is not known
	dialling map[string]bool
	news     chan struct{} // closed and replaced when the nodes change
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

// follow watches Config.Membership and reports its changes to the keepers until the session is
// closed.
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

// found asks Config.Membership for the nodes. The membership may be code of the application: if it
// panics or ends its goroutine, only this call fails, and ok is false.
func (ns *nodes) found() (nodes []discovery.Node, changed <-chan struct{}, ok bool) {
	if f := callback.Apart(func() { nodes, changed = ns.s.cfg.Membership.Nodes() }); f != nil {
		ns.s.failed(f, "Config.Membership")
		return nil, nil, false
	}
	return nodes, changed, true
}

// heardOf replaces the list of nodes with the one that a node has sent. The caller holds
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

// key returns the name of the node at an address, or the address if the name is not known. The
// caller holds attachments.mu.
func (ns *nodes) key(addr string) string {
	if name := ns.names[addr]; name != "" {
		return name
	}
	return addr
}

// taken reports whether another keeper has the node at addr or is dialling it. A connection on
// which the session must log in again does not count, because a new one to the same node takes its
// place. The caller holds attachments.mu.
func (ns *nodes) taken(addr string) bool {
	key := ns.key(addr)
	if ns.dialling[key] {
		return true
	}
	for c := range ns.s.attachments.conns {
		if c.place == placeOpen && !c.renewing.Load() && (c.addr == addr || c.node == key) {
			return true
		}
	}
	return false
}

// claim reserves the node at addr for the caller until unclaim(key). It returns false if another
// keeper has it.
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

// candidates returns the addresses to try: first the preferred ones, then last if it is still
// listed, then the other listed ones in random order, and avoid at the end if it is listed. The
// list has the nodes that a node has announced and those of a Membership that can change. It has
// the configured nodes only if no node has announced any, or no connection is left that stays.
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
