package floor

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/panjf2000/gnet/v2"
)

// maxNumber bounds the table of destinations.
const maxNumber = 1 << 20

// relay is the event handler. All its methods run on its one event loop.
type relay struct {
	gnet.BuiltinEventEngine

	places  []*conn // by number; nil: nobody has claimed it
	groups  map[uint32][]*conn
	dirty   []*conn // with bytes to write
	armed   bool    // flusher is queued
	flusher gnet.Runnable
}

// conn is one client.
type conn struct {
	gc      gnet.Conn // nil if closed
	carry   []byte    // the beginning of an incomplete frame
	pending []byte    // what the relay will write at the end of the iteration
	dirty   bool
}

// Serve relays frames between the clients that connect to ln, on one event loop. It returns when
// ctx ends, and closes ln.
func Serve(ctx context.Context, ln net.Listener) error {
	r := &relay{groups: make(map[uint32][]*conn)}
	r.flusher = gnet.RunnableFunc(func(context.Context) error { r.flush(); return nil })
	loops, err := gnet.NewClient(r, gnet.WithNumEventLoop(1))
	if err != nil {
		return err
	}
	if err := loops.Start(); err != nil {
		return err
	}
	defer loops.Stop()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var enrolling sync.WaitGroup
	defer enrolling.Wait()
	for {
		socket, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return errors.Join(err, ln.Close())
		}
		// a loop takes new connections once per iteration, so they wait for it together
		enrolling.Go(func() { _, _ = loops.EnrollContext(socket, new(conn)) })
	}
}

func (r *relay) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	gc.Context().(*conn).gc = gc
	return nil, gnet.None
}

func (r *relay) OnClose(gc gnet.Conn, _ error) gnet.Action {
	c := gc.Context().(*conn)
	c.gc = nil
	for number, owner := range r.places {
		if owner == c {
			r.places[number] = nil
		}
	}
	for number, members := range r.groups {
		r.groups[number] = slices.DeleteFunc(members, func(member *conn) bool { return member == c })
	}
	return gnet.None
}

func (r *relay) OnTraffic(gc gnet.Conn) gnet.Action {
	c := gc.Context().(*conn)
	data, _ := gc.Next(-1)
	for len(data) > 0 {
		frame, used, err := c.next(data)
		if err == nil && frame != nil {
			err = r.relay(c, frame)
		}
		if err != nil {
			return gnet.Close
		}
		data = data[used:]
	}
	return gnet.None
}

// next returns the next frame of what has come in, data, behind the carry. It returns nil if the
// frame is not complete. Used is how many bytes of data it has taken.
func (c *conn) next(data []byte) (frame []byte, used int, err error) {
	if len(c.carry) == 0 {
		n, err := length(data)
		if err == nil && (n == 0 || n > len(data)) {
			c.carry = append(c.carry, data...)
			return nil, len(data), nil
		}
		return data[:n], n, err
	}
	if missing := lengthLen - len(c.carry); missing > 0 {
		used = min(missing, len(data))
		c.carry = append(c.carry, data[:used]...)
	}
	n, err := length(c.carry)
	if err != nil || n == 0 {
		return nil, used, err
	}
	rest := min(n-len(c.carry), len(data)-used)
	c.carry = append(c.carry, data[used:used+rest]...)
	used += rest
	if len(c.carry) < n {
		return nil, used, nil
	}
	frame, c.carry = c.carry, c.carry[:0] // relay copies it before the next use
	return frame, used, nil
}

var errNumber = errors.New("floor: a number is too large")

// relay copies a complete frame to what its destination will get.
func (r *relay) relay(from *conn, frame []byte) error {
	to := binary.LittleEndian.Uint32(frame[lengthLen:])
	switch Kind(frame[lengthLen+4]) {
	case Claim:
		return r.claim(from, to)
	case Join:
		if to >= maxNumber {
			return errNumber
		}
		r.groups[to] = append(r.groups[to], from)
		return nil
	}
	if int(to) < len(r.places) && r.places[to] != nil {
		return r.pass(r.places[to], frame)
	}
	for _, member := range r.groups[to] {
		if member == from {
			continue
		}
		if err := r.pass(member, frame); err != nil {
			return err
		}
	}
	return nil
}

// pass copies a frame to what a client will get.
func (r *relay) pass(c *conn, frame []byte) error {
	c.pending = append(c.pending, frame...)
	if !c.dirty {
		c.dirty = true
		r.dirty = append(r.dirty, c)
	}
	if !r.armed {
		r.armed = true
		return c.gc.EventLoop().Execute(context.Background(), r.flusher)
	}
	return nil
}

func (r *relay) claim(c *conn, number uint32) error {
	if number >= maxNumber {
		return errNumber
	}
	if missing := int(number) + 1 - len(r.places); missing > 0 {
		r.places = append(r.places, make([]*conn, missing)...)
	}
	r.places[number] = c
	return nil
}

// flush writes what has been relayed in this iteration, once for each destination.
func (r *relay) flush() {
	r.armed = false
	for _, c := range r.dirty {
		c.dirty = false
		if c.gc != nil { // else gnet would write into the new owner of its file descriptor
			_, _ = c.gc.Write(c.pending) // if it fails, gnet closes the connection
		}
		c.pending = c.pending[:0]
	}
	r.dirty = r.dirty[:0]
}
