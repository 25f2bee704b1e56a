package loadtest

import (
	"slices"
	"sync"

	"distmsg/codec"
	"distmsg/discovery"
)

// book holds the addresses of all nodes that are known: those of the configuration or of discovery, and those that
// nodes have told of. Its methods may be called from any goroutine.
type book struct {
	membership discovery.Membership
	mu         sync.Mutex
	told       []codec.Member // as the last node told them
}

// first are the addresses to begin with.
func (b *book) first() []string {
	nodes, _ := b.membership.Nodes()
	addrs := make([]string, len(nodes))
	for i, n := range nodes {
		addrs[i] = n.Addr
	}
	return addrs
}

// learn takes in the list of a welcome or a members frame.
func (b *book) learn(all []codec.Member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = all
}

// after lists where to go from addr: the preferred ones, then all that are known, beginning behind addr, which
// comes last, or not at all.
func (b *book) after(addr string, preferred []string, last bool) []string {
	all := b.first()
	b.mu.Lock()
	for _, m := range b.told {
		if !slices.Contains(all, m.Addr) {
			all = append(all, m.Addr)
		}
	}
	b.mu.Unlock()
	at := slices.Index(all, addr) + 1
	all = slices.Concat(preferred, all[at:], all[:at])
	var list []string
	for _, a := range all {
		if a != addr && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	if last {
		list = append(list, addr)
	}
	return list
}
