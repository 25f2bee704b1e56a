package engine

import (
	"math"

	"distmsg/codec"
)

// A frame for many recipients may take long. So the loop handles it in slices, each of a
// millisecond or two, and others have their turn in between. Its connection waits meanwhile (see
// turns.go), so what it has sent behind the frame stays behind it. Most such frames are done within
// one slice. The bytes of the others are copied.

// longFrame is a frame of which a part has been handled.
type longFrame interface {
	// goOn handles another slice, and reports whether it was the last.
	goOn(c *conn) (done bool)
	// drop ends what is left: the connection has closed.
	drop(l *loop)
}

// recipientCost is what it costs to write to one of many recipients, in units of work.
func recipientCost(e *Engine) int {
	if e.cfg.Hooks.Deliver != nil {
		return hookedCost
	}
	return 1
}

// beginSlice begins a slice. The fan is empty.
func (p *pace) beginSlice() {
	p.sliceEnds, p.sliceLeft = p.stamped+sliceShare, sliceLeast
	if p.every == hookedWork {
		p.sliceLeft = hookedLeast
	}
}

// sliceOver counts a recipient, and reports whether what is left of a frame has to wait for the
// next slice.
func (p *pace) sliceOver() bool {
	p.sliceLeft--
	return p.loop.scratch.fan.cost >= sliceWork || p.sliceLeft <= 0 && p.stamped >= p.sliceEnds
}

// suspend ends the connection's turn in the middle of a frame.
func (in *input) suspend(f longFrame) {
	c := in.conn
	c.loop.stats.sliced++
	c.loop.pace.turnOver = true
	in.long = f
	in.await()
}

// resumeLong handles another slice of the frame that was suspended.
func (in *input) resumeLong() {
	f := in.long
	in.long = nil
	if !f.goOn(in.conn) {
		in.suspend(f)
	}
}

// manyFunc handles recipients of a frame until the slice is over, and takes them out of m.To.
type manyFunc func(c *conn, m *codec.DeliverMany) error

// longMany is a suspended frame that names many recipients with their tokens.
type longMany struct {
	kind codec.Kind
	many codec.DeliverMany // decoded from a copy; the recipients that are left
	f    manyFunc
}

// inSlices handles a frame with f, in as many slices as it takes. m was decoded from body.
func (in *input) inSlices(kind codec.Kind, body []byte, m *codec.DeliverMany, f manyFunc) error {
	c := in.conn
	n := m.To.Len()
	c.loop.pace.beginSlice()
	if err := f(c, m); err != nil || m.To.Len() == 0 || c.state == stateClosed {
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
	return c.state == stateClosed || k.many.To.Len() == 0
}

func (k *longMany) drop(*loop) {} // the other node, or the acks' deadlines, end what was not handled
