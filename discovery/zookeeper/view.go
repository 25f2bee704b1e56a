package zookeeper

import (
	"slices"
	"sync"

	"distmsg/discovery"
)

// view is the membership as readers see it. A slice in it never changes.
type view struct {
	mu             sync.Mutex
	records        []discovery.Record // guarded by mu; nil: not known yet
	recordsChanged chan struct{}      // guarded by mu; closed when records is replaced
	nodes          []discovery.Node   // guarded by mu
	nodesChanged   chan struct{}      // guarded by mu; closed when nodes is replaced
}

func newView() *view {
	return &view{recordsChanged: make(chan struct{}), nodesChanged: make(chan struct{})}
}

// publish replaces what readers see, if it has changed. records must not be nil.
func (v *view) publish(records []discovery.Record) {
	nodes := nodesOf(records)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.records == nil || !slices.Equal(v.records, records) {
		close(v.recordsChanged)
		v.records, v.recordsChanged = records, make(chan struct{})
	}
	if !slices.Equal(v.nodes, nodes) {
		close(v.nodesChanged)
		v.nodes, v.nodesChanged = nodes, make(chan struct{})
	}
}

func (v *view) allRecords() ([]discovery.Record, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.records, v.recordsChanged
}

func (v *view) allNodes() ([]discovery.Node, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.nodes, v.nodesChanged
}

// nodesOf returns the nodes that accept new sessions. If a node and its former incarnation have one
// address, it returns the newer one.
func nodesOf(records []discovery.Record) []discovery.Node {
	var nodes []discovery.Node
	at := make(map[string]int, len(records))
	for _, r := range records {
		if r.Draining || r.Addr == "" {
			continue
		}
		node := discovery.Node{ID: r.ID, Addr: r.Addr}
		if i, ok := at[r.Addr]; ok {
			nodes[i] = node
			continue
		}
		at[r.Addr] = len(nodes)
		nodes = append(nodes, node)
	}
	return nodes
}
