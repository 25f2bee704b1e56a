package client

import (
	"context"
	"time"
)

// context returns the context for the handler of d. It allocates nothing until somebody calls its
// Done or Value.
func (d *Delivery) context(session context.Context) context.Context {
	if d.deadline == 0 {
		return session
	}
	return (*deliveryContext)(d)
}

// deliveryContext is the context of a delivery that has a deadline.
type deliveryContext Delivery

// endingContext is the context behind a deliveryContext, once somebody waits for its end. Its timer
// ends with the deadline.
type endingContext struct {
	context.Context
	cancel context.CancelFunc
}

func (c *deliveryContext) session() context.Context { return c.answer.conn.s.inbox.ctx }

func (c *deliveryContext) Deadline() (time.Time, bool) { return (*Delivery)(c).Deadline() }

func (c *deliveryContext) Done() <-chan struct{} { return c.real().Done() }

func (c *deliveryContext) Err() error {
	if r := c.ending.Load(); r != nil {
		return r.Err()
	}
	if err := c.session().Err(); err != nil {
		return err
	}
	if deadline, _ := c.Deadline(); !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value asks the real context, so that package context finds in it what it needs to end those that
// are derived from this one.
func (c *deliveryContext) Value(key any) any { return c.real().Value(key) }

func (c *deliveryContext) real() *endingContext {
	if r := c.ending.Load(); r != nil {
		return r
	}
	deadline, _ := c.Deadline()
	r := new(endingContext)
	r.Context, r.cancel = context.WithDeadline(c.session(), deadline)
	if !c.ending.CompareAndSwap(nil, r) {
		r.cancel()
	}
	return c.ending.Load()
}
