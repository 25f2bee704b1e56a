package engine

import (
	"math"

	"distmsg/codec"
)

// Handling a frame for many recipients may take long. So the loop handles it in slices of a
// millisecond or two, and other connections get their turn in between. The frame's connection waits
// meanwhile (see turns.go), so later frames of the same connection stay behind it. Most such frames
// fit into one slice. If one does not, the loop copies its bytes.

// longFrame is a frame that has been handled in part.
type longFrame interface {
	// goOn handles another slice. It reports whether that was the last.
	goOn(c *conn) (done bool)
	// drop ends what is left, because the connection has closed.
	drop(l *loop)
}

// recipientCost returns the cost of writing to one of many recipients, in units of work.
func recipientCost(e *Engine) int {
	if e.cfg.Hooks.Deliver != nil {
		return hookedCost
	}
	return 1
}

// beginSlice begins a slice. The fan must be empty.
func (p *pace) beginSlice() {
	p.sliceEnds, p.sliceLeft = p.stamped+sliceShare, sliceLeast
	if p.every == hookedWork {
		p.sliceLeft = hookedLeast
	}
}

// sliceOver counts a recipient. It reports whether the rest of a frame must wait for the next
// slice.
func (p *pace) sliceOver() bool {
	p.sliceLeft--
	return p.loop.scratch.fan.cost >= sliceWork || p.sliceLeft <= 0 && p.stamped >= p.sliceEnds
}

// suspend ends the connection's turn in the middle of a frame.
func (in *input) suspend(f longFrame) {
	c := in.conn
	c.loop.stats.sliced++
	c.loop.pace.turnOver = true
	in.waits().long = f
	in.await()
}

// hasLong reports whether a part of a frame has been handled.
func (in *input) hasLong() bool { return in.later != nil && in.later.long != nil }

// resumeLong handles another slice of the suspended frame.
func (in *input) resumeLong() {
	f := in.later.long
	in.later.long = nil
	if !f.goOn(in.conn) {
		in.suspend(f)
	}
}

// manyFunc handles recipients of a frame until the slice is over, and removes them from m.To.
type manyFunc func(c *conn, m *codec.DeliverMany) error

// longMany is a suspended frame that names many recipients with their tokens.
type longMany struct {
	kind codec.Kind
	many codec.DeliverMany // the recipients that are left, decoded from a copy
	f    manyFunc
}

// inSlices handles a frame with f, in as many slices as needed. m was decoded from body.
func (in *input) inSlices(kind codec.Kind, body []byte, m *codec.DeliverMany, f manyFunc) error {
	c := in.conn
	n := m.To.Len()
	c.loop.pace.beginSlice()
	if err := f(c, m); err != nil || m.To.Len() == 0 || c.closed() {
		return err
	}
	k := &longMany{kind: kind, f: f}
	if err := codec.DecodeDeliverMany(append([]byte(nil), body...), kind, math.MaxInt, &k.many); err != nil {
		return err
	}
	for range n - m.To.Len() {
		k.many.To.Next()
	}
	in.suspend(k)
	return nil
}

func (k *longMany) goOn(c *conn) (done bool) {
	c.loop.pace.beginSlice()
	if err := k.f(c, &k.many); err != nil {
		c.decodeFault(err, k.kind)
	}
	return c.closed() || k.many.To.Len() == 0
}

// drop does nothing: the other node, or the deadlines of the acks, end the messages that are left.
func (k *longMany) drop(*loop) {}
