package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"distmsg/codec"
	"distmsg/internal/callback"
)

// over returns why ctx lets nothing more be done, or nil. A deadline counts from the moment it passes, which
// may be before the context's own timer has run.
func over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// mayBegin is what every call asks first: a context that has ended before lets nothing be done.
func mayBegin(ctx context.Context) error {
	if err := over(ctx); err != nil {
		return fmt.Errorf("client: nothing was done: %w", err)
	}
	return nil
}

// blame names the context's deadline as the cause of an outcome that says that the time was up.
func (e *Error) blame() {
	if e.cause == nil && (e.Code == codec.CodeTimeout || e.Code == codec.CodeExpired) {
		e.cause = context.DeadlineExceeded
	}
}

// dial has the application's Dialer open a connection, and waits no longer for it than ctx lives, because a
// Dialer may ignore its context. A connection that comes too late is closed. While such a call has not
// returned, there is no other for the address: there might be ever more of them.
func (s *Session) dial(ctx context.Context, addr string) (net.Conn, error) {
	type dialled struct {
		nc  net.Conn
		err error
	}
	if !s.beginDial(addr) {
		return nil, errStuckDial
	}
	got := make(chan dialled)
	go func() {
		defer s.endDial(addr)
		nc, err := s.callDialer(ctx, addr)
		select {
		case got <- dialled{nc, err}:
		case <-ctx.Done():
			if err == nil {
				nc.Close()
			}
		}
	}()
	select {
	case d := <-got:
		return d.nc, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// callDialer calls the application's Dialer, which can stop nothing but this attempt.
func (s *Session) callDialer(ctx context.Context, addr string) (nc net.Conn, err error) {
	if f := callback.Apart(func() { nc, err = s.cfg.Dialer(ctx, addr) }); f != nil {
		s.failed(f, "Config.Dialer")
		return nil, errors.New("Config.Dialer " + f.How())
	}
	if nc == nil && err == nil {
		return nil, errors.New("Config.Dialer returned neither a connection nor an error")
	}
	return nc, err
}

var errStuckDial = errors.New("the Dialer has not returned from an earlier call for this address")

// beginDial reports whether no call of the Dialer for addr is under way.
func (s *Session) beginDial(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes.opening[addr] {
		return false
	}
	s.nodes.opening[addr] = true
	return true
}

func (s *Session) endDial(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes.opening, addr)
}
