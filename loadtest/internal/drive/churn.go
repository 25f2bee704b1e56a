package drive

import "math/rand/v2"

// any returns a random connection.
func (w *wire) any() *wireConn { return &w.conns[rand.IntN(len(w.conns))] }

// Rebind implements Churner, and so do Move and Cut.
func (w *wire) Rebind() {
	c := w.any()
	if c.cur == nil {
		return
	}
	if r, ok := c.cur.proto.(*relay); ok && !r.binding {
		r.begin()
	}
}

func (w *wire) Move() {
	c := w.any()
	switch {
	case c.cur == nil:
	case len(w.addresses.after(c.addr, nil, false)) > 0:
		w.attach(c, nil, true, 0)
	default:
		w.attach(c, []string{c.addr}, false, 0)
	}
}

func (w *wire) Cut() {
	c := w.any()
	if c.cur != nil && c.next == nil && !c.dialing {
		c.cur.gc.Close()
	}
}
