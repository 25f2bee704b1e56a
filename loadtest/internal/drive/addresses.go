package drive

import (
	"slices"
	"sync"

	"distmsg/codec"
	"distmsg/discovery"
)

// addresses holds the addresses of all known nodes: from the configuration or discovery, and from
// what nodes announce. Any goroutine may call its methods.
type addresses struct {
	membership discovery.Membership
	mu         sync.Mutex
	told       []codec.Member // the last list that a node sent
}

// first returns the addresses where the connections start.
func (a *addresses) first() []string {
	nodes, _ := a.membership.Nodes()
	addrs := make([]string, len(nodes))
	for i, n := range nodes {
		addrs[i] = n.Addr
	}
	return addrs
}

// learn adopts the list of a welcome or a members frame.
func (a *addresses) learn(all []codec.Member) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = all
}

// after lists the addresses to try after addr: the preferred ones first, then all known ones in
// order, beginning after addr. If last is set, addr itself comes last unless it is preferred.
// Otherwise the list does not contain it.
func (a *addresses) after(addr string, preferred []string, last bool) []string {
	all := a.first()
	a.mu.Lock()
	for _, m := range a.told {
		if !slices.Contains(all, m.Addr) {
			all = append(all, m.Addr)
		}
	}
	a.mu.Unlock()
	at := slices.Index(all, addr) + 1
	all = slices.Concat(preferred, all[at:], all[:at], []string{addr})
	var list []string
	for _, other := range all {
		if (last || other != addr) && !slices.Contains(list, other) {
			list = append(list, other)
		}
	}
	return list
}
