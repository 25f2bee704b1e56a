package zookeeper

import (
	"slices"
	"testing"

	"distmsg/discovery"
	"distmsg/discovery/discoverytest"
)

// TestContract runs the suite of all sources. The membership under test connects through a proxy,
// which can cut it off.
func TestContract(t *testing.T) {
	discoverytest.Run(t, func(t *testing.T) *discoverytest.Harness {
		p := startProxy(t, shared.Addr)
		announced := make(map[int]*Membership)
		return &discoverytest.Harness{
			Open: func(t *testing.T) discoverytest.Source { return open(t, Config{URL: place(t, p.addr)}) },
			Set: func(t *testing.T, nodes ...int) {
				for _, i := range nodes {
					if announced[i] == nil {
						announced[i] = open(t, Config{URL: place(t, shared.Addr)})
						announce(t, announced[i], record(i))
					}
				}
				for i, m := range announced {
					if !slices.Contains(nodes, i) {
						m.Close()
						delete(announced, i)
					}
				}
			},
			Want:  func(nodes ...int) []discovery.Record { return records(nodes...) },
			Break: func(*testing.T) { p.refuses.Store(true); p.cut() },
			Heal:  func(*testing.T) { p.refuses.Store(false) },
		}
	})
}
