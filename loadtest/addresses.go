package loadtest

import (
	"slices"
	"sync"

	"distmsg/codec"
	"distmsg/discovery"
)

// addresses are those of all nodes that are known: those of the configuration or of discovery, and
// those that nodes have told of. Its methods may be called from any goroutine.
type addresses struct {
	membership discovery.Membership
	mu         sync.Mutex
	told       []codec.Member // as the last node told them
}

// first are the addresses to begin with.
func (a *addresses) first() []string {
	nodes, _ := a.membership.Nodes()
	addrs := make([]string, len(nodes))
	for i, n := range nodes {
		addrs[i] = n.Addr
	}
	return addrs
}

// learn takes in the list of a welcome or a members frame.
func (a *addresses) learn(all []codec.Member) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = all
}

// after lists where to go from addr: the preferred ones, then all that are known, beginning behind
// addr, which comes last, or not at all.
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
	all = slices.Concat(preferred, all[at:], all[:at])
	var list []string
	for _, other := range all {
		if other != addr && !slices.Contains(list, other) {
			list = append(list, other)
		}
	}
	if last {
		list = append(list, addr)
	}
	return list
}
