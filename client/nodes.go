package client

import (
	"math/rand/v2"
	"slices"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/internal/callback"
)

// nodes is what the session knows of the nodes. Guarded by Session.mu.
type nodes struct {
	told  []codec.Member    // as a node told last; empty: none did
	names map[string]string // by address, as lists and welcomes say
	// the nodes (or addresses, where no name is known) that a keeper dials now
	dialling map[string]bool
	news     chan struct{} // closed and replaced when there are others to try
}

// news returns a channel that is closed when the nodes have changed.
func (s *Session) news() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes.news
}

// tellNews wakes the keepers that look for a node. It needs s.mu.
func (s *Session) tellNews() {
	close(s.nodes.news)
	s.nodes.news = make(chan struct{})
}

// follow passes on the news of discovery until the session is closed.
func (s *Session) follow() {
	for {
		_, changed, ok := s.found()
		if !ok {
			if !s.pause(s.life, s.cfg.MaxBackoff, nil) {
				return
			}
			continue
		}
		if changed == nil {
			return
		}
		select {
		case <-changed:
		case <-s.life.Done():
			return
		}
		s.mu.Lock()
		s.tellNews()
		s.mu.Unlock()
	}
}

// found asks Config.Membership, which may be the application's, and can stop nothing but this look;
// ok is false if it did not return.
func (s *Session) found() (nodes []discovery.Node, changed <-chan struct{}, ok bool) {
	if f := callback.Apart(func() { nodes, changed = s.cfg.Membership.Nodes() }); f != nil {
		s.failed(f, "Config.Membership")
		return nil, nil, false
	}
	return nodes, changed, true
}

// heardOf takes in the list of nodes that a node told, in place of the one before. It needs s.mu.
func (s *Session) heardOf(told []codec.Member) {
	n := &s.nodes
	for _, m := range told {
		n.names[m.Addr] = m.Node
	}
	if !slices.Equal(n.told, told) {
		n.told = told
		s.tellNews()
	}
}

// key names the node behind an address as well as it is known. It needs s.mu.
func (s *Session) key(addr string) string {
	if name := s.nodes.names[addr]; name != "" {
		return name
	}
	return addr
}

// taken reports whether another keeper has the node, or is about to. It needs s.mu.
func (s *Session) taken(addr string) bool {
	key := s.key(addr)
	if s.nodes.dialling[key] {
		return true
	}
	for c := range s.conns {
		if !c.gone && (c.addr == addr || c.node == key) {
			return true
		}
	}
	return false
}

// claim reserves the node at addr for the caller to dial, until unclaim(key); false if another has
// it.
func (s *Session) claim(addr string) (key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken(addr) {
		return "", false
	}
	key = s.key(addr)
	s.nodes.dialling[key] = true
	return key, true
}

func (s *Session) unclaim(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes.dialling, key)
}

// candidates lists the addresses to try: the preferred ones, the last one if it is still listed,
// the others in random order, avoid at the end. Listed is what a node told last, and what a
// Membership that changes says. The configured nodes count if no node has told any, or no
// connection is left that stays.
func (s *Session) candidates(preferred []string, last, avoid string) []string {
	found, changed, _ := s.found()
	s.mu.Lock()
	defer s.mu.Unlock()
	var listed, resort []string
	for _, m := range s.nodes.told {
		listed = append(listed, m.Addr)
	}
	for _, n := range found {
		if n.ID != "" {
			s.nodes.names[n.Addr] = n.ID
		}
		switch {
		case changed != nil || len(s.nodes.told) == 0:
			listed = append(listed, n.Addr)
		case !s.hasSettled():
			resort = append(resort, n.Addr)
		}
	}
	shuffle(listed)
	shuffle(resort)
	known := append(listed, resort...)
	var addrs []string
	add := func(addr string) {
		if addr != "" && !slices.Contains(addrs, addr) && !s.taken(addr) {
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
