package localcluster

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// paths are the ways between processes that can be cut. Each has a door: a listener in front of the
// process at its end.
type paths struct {
	now  atomic.Pointer[cuts]
	work sync.WaitGroup
	over chan struct{} // closed at the end

	mu    sync.Mutex
	doors []*door
	open  map[net.Conn]struct{} // guarded by mu; nil: the end has come
}

// cuts are sides that do not hear each other.
type cuts struct {
	sides [][]string
	ended chan struct{} // closed when other cuts take their place
}

func newPaths() *paths {
	p := &paths{over: make(chan struct{}), open: make(map[net.Conn]struct{})}
	p.now.Store(&cuts{ended: make(chan struct{})})
	return p
}

func (p *paths) cut(sides [][]string) {
	before := p.now.Swap(&cuts{sides, make(chan struct{})})
	close(before.ended)
}

// part reports whether the cuts lie between two processes.
func (c *cuts) part(a, b string) bool {
	side := func(name string) int {
		return slices.IndexFunc(c.sides, func(s []string) bool { return slices.Contains(s, name) })
	}
	i, j := side(a), side(b)
	return i >= 0 && j >= 0 && i != j
}

// wait waits until the path between two processes is whole. It returns false at the end.
func (p *paths) wait(a, b string) bool {
	for {
		c := p.now.Load()
		if !c.part(a, b) {
			return true
		}
		select {
		case <-c.ended:
		case <-p.over:
			return false
		}
	}
}

// door is the beginning of all paths to one process, or of the path from one process to another.
type door struct {
	paths    *paths
	listener net.Listener
	from, to string // from is empty where several nodes dial

	mu     sync.Mutex
	target string // guarded by mu: host:port; empty: not known yet
}

// between makes the path from one process to another, and returns its address.
func (p *paths) between(from, to, target string) (addr string, err error) {
	d, err := p.door(from, to)
	if err != nil {
		return "", err
	}
	d.lead(target)
	return d.addr(), nil
}

// peersOf makes the door by which other nodes reach a node. It finds out which node dials.
func (p *paths) peersOf(node string) (*door, error) { return p.door("", node) }

func (p *paths) door(from, to string) (*door, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &door{paths: p, listener: listener, from: from, to: to}
	p.mu.Lock()
	p.doors = append(p.doors, d)
	p.mu.Unlock()
	p.work.Go(d.accept)
	return d, nil
}

func (d *door) addr() string { return d.listener.Addr().String() }

// lead says where the process listens.
func (d *door) lead(target string) {
	d.mu.Lock()
	d.target = target
	d.mu.Unlock()
}

func (d *door) accept() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.paths.work.Go(func() { d.serve(conn) })
	}
}

// serve moves bytes between a connection and the process behind the door, until either side closes.
func (d *door) serve(near net.Conn) {
	p := d.paths
	if !p.add(near) {
		return
	}
	defer p.remove(near)
	from := d.from
	if from == "" {
		from = ownerOf(near)
	}
	if from == "" { // no cut would concern it
		reset(near)
		return
	}
	if !p.wait(from, d.to) {
		return
	}
	d.mu.Lock()
	target := d.target
	d.mu.Unlock()
	far, err := net.Dial("tcp", target)
	if err != nil || !p.add(far) {
		reset(near)
		return
	}
	defer p.remove(far)
	var back sync.WaitGroup
	back.Go(func() { p.pump(near, far, d.to, from) })
	p.pump(far, near, from, d.to)
	back.Wait()
}

// pump moves bytes of a connection until there are no more, or the other side does not take them,
// and ends the other side in the same way: in good order, or by a reset. A path that is cut holds
// what it has, and reads no more.
func (p *paths) pump(to, from net.Conn, a, b string) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !p.wait(a, b) {
			return
		}
		if n > 0 {
			if _, broken := to.Write(buf[:n]); broken != nil {
				reset(from)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		} else if err != nil {
			reset(to)
			return
		}
	}
}

// reset closes a connection so that the other side learns at once that it cannot send either.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// add counts a connection. It returns false, and closes the connection, if the end has come.
func (p *paths) add(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		conn.Close()
		return false
	}
	p.open[conn] = struct{}{}
	return true
}

func (p *paths) remove(conn net.Conn) {
	conn.Close()
	p.mu.Lock()
	delete(p.open, conn)
	p.mu.Unlock()
}

// close ends all paths, and waits for their goroutines.
func (p *paths) close() {
	close(p.over)
	p.mu.Lock()
	for _, d := range p.doors {
		d.listener.Close()
	}
	for conn := range p.open {
		conn.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.work.Wait()
}
