package traffic

import "math/rand/v2"

// Places records at which node each connection is. A connection that is down counts at its last
// node. A change and a choice cost O(nodes).
type Places struct {
	of    []int // by connection: the index of its node; -1 if not known yet
	at    []int // by connection: its index in the list of its node
	nodes map[string]int
	conns [][]int // by node
}

func newPlaces(conns int) Places {
	p := Places{of: make([]int, conns), at: make([]int, conns), nodes: make(map[string]int)}
	for i := range p.of {
		p.of[i] = -1
	}
	return p
}

// put records that a connection is at a node.
func (p *Places) put(conn int, node string) {
	n, ok := p.nodes[node]
	if !ok {
		n = len(p.conns)
		p.nodes[node] = n
		p.conns = append(p.conns, nil)
	}
	if old := p.of[conn]; old >= 0 {
		list := p.conns[old]
		last := list[len(list)-1]
		list[p.at[conn]], p.at[last] = last, p.at[conn]
		p.conns[old] = list[:len(list)-1]
	}
	p.of[conn], p.at[conn] = n, len(p.conns[n])
	p.conns[n] = append(p.conns[n], conn)
}

// Several reports whether connections have ever been at more than one node.
func (p *Places) Several() bool { return len(p.conns) > 1 }

// pick chooses a random other connection: at another node if elsewhere is set, else at the same
// node. ok is false if there is none.
func (p *Places) pick(rng *rand.Rand, conn int, elsewhere bool) (other int, ok bool) {
	mine := p.conns[p.of[conn]]
	if !elsewhere {
		if len(mine) < 2 {
			return 0, false
		}
		i := rng.IntN(len(mine) - 1)
		if i >= p.at[conn] {
			i++
		}
		return mine[i], true
	}
	total := -len(mine)
	for _, list := range p.conns {
		total += len(list)
	}
	if total == 0 {
		return 0, false
	}
	i := rng.IntN(total)
	for n, list := range p.conns {
		switch {
		case n == p.of[conn]:
		case i < len(list):
			return list[i], true
		default:
			i -= len(list)
		}
	}
	return 0, false
}

// Used returns the number of nodes that have connections.
func (p *Places) Used() (n int) {
	for _, list := range p.conns {
		if len(list) > 0 {
			n++
		}
	}
	return n
}
