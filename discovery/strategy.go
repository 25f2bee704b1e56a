package discovery

import (
	"math/rand/v2"
	"sync/atomic"
)

// Strategy chooses one of several nodes for the messages from one ID to another.
type Strategy interface {
	// Pick returns an index into nodes, which must not be empty. It may be called from any
	// goroutine, does not allocate and does not keep nodes.
	Pick(nodes []Node, from, to string) int
}

// Random returns the Strategy that chooses evenly and without memory.
func Random() Strategy { return random{} }

type random struct{}

func (random) Pick(nodes []Node, _, _ string) int { return rand.IntN(len(nodes)) }

// RoundRobin returns a Strategy that chooses the nodes in turn, beginning with the first.
func RoundRobin() Strategy { return new(roundRobin) }

type roundRobin struct{ next atomic.Uint64 }

func (r *roundRobin) Pick(nodes []Node, _, _ string) int {
	return int((r.next.Add(1) - 1) % uint64(len(nodes)))
}

// PairHash returns the Strategy that always chooses the same node for a (from, to) pair while that
// node is listed, so that the pair's messages keep their order. When a node joins or leaves, only
// the pairs of that node move (rendezvous hashing on Addr).
func PairHash() Strategy { return pairHash{} }

type pairHash struct{}

func (pairHash) Pick(nodes []Node, from, to string) int {
	// The zero byte keeps ("ab", "c") apart from ("a", "bc").
	pair := hash(hash(hash(fnvOffset, from), "\x00"), to)
	best, top := 0, uint64(0)
	for i := range nodes {
		if h := mix(pair ^ hash(fnvOffset, nodes[i].Addr)); h > top || i == 0 {
			best, top = i, h
		}
	}
	return best
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// hash continues FNV-1a from h.
func hash(h uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

// mix spreads every bit of h over all bits (the finalizer of splitmix64): FNV alone leaves the high
// bits, which decide the comparison, nearly equal for addresses that differ in their last digit.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
