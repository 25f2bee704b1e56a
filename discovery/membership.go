package discovery

import (
	"fmt"
	"net"
	"slices"
)

// Node is one running relay node, as its clients need to know it.
type Node struct {
	ID   string // its name in the cluster; "" where only an address is known
	Addr string // where clients connect: host:port
}

// Record is what a node announces to the other nodes of its cluster. A source that knows only
// addresses, such as DNS, lists records without an ID. These have a PeerAddr, perhaps a PeerName,
// and nothing else. Then each node asks those addresses which nodes are there.
type Record struct {
	ID          string // its name in the cluster; "" if only PeerAddr is known
	Incarnation uint64 // new at every start
	Addr        string // where clients connect: host:port
	PeerAddr    string // where other nodes connect: host:port
	// the host for which its certificate for links must be; "" for the one in PeerAddr
	PeerName string
	Draining bool // it accepts no new sessions
	// the approximate number of its clients; every watcher receives each change
	Load int
}

// Membership knows the nodes of a cluster. All methods may be called from any goroutine and never
// block.
type Membership interface {
	// Nodes returns the nodes known now, and a channel that is closed when that list is out of
	// date. A nil channel means that the list never changes. The slice is shared: do not write to
	// it.
	Nodes() (nodes []Node, changed <-chan struct{})
}

type static []Node

var _ Membership = static(nil)

// Static returns a Membership of the given host:port addresses that never changes. It fails if
// there is none, or if one is not an address.
func Static(addrs ...string) (Membership, error) {
	if len(addrs) == 0 {
		return nil, fmt.Errorf("discovery: no node addresses are given")
	}
	nodes := make(static, 0, len(addrs))
	for _, addr := range addrs {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			return nil, fmt.Errorf("discovery: %q is not a host:port address", addr)
		}
		nodes = append(nodes, Node{Addr: addr})
	}
	return slices.Clip(nodes), nil
}

func (s static) Nodes() ([]Node, <-chan struct{}) { return s, nil }
