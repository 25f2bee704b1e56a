// Package dialing calls an application's function that opens connections, and does not wait for it
// longer than it should.
package dialing

import (
	"context"
	"errors"
	"net"
	"sync"
)

// ErrStuck means that a call was not made because an earlier one for the same address has not
// returned.
var ErrStuck = errors.New("the Dialer has not returned from an earlier call for this address")

var errNothing = errors.New("the Dialer returned neither a connection nor an error")

// Dialer calls Func, which may ignore its context. Any goroutine may call all methods.
type Dialer struct {
	// Func opens a connection to addr. It is static.
	Func func(ctx context.Context, addr string) (net.Conn, error)

	mu sync.Mutex
	// guarded by mu; the addresses for which a call of Func has not returned
	opening map[string]struct{}
}

// Open opens a connection. If ctx ends first, it returns ctx's error, and closes a connection that
// comes later. It returns ErrStuck while an earlier call of Func for this address has not returned,
// so that stuck calls do not accumulate. The caller closes the connection.
func (d *Dialer) Open(ctx context.Context, addr string) (net.Conn, error) {
	type opened struct {
		conn net.Conn
		err  error
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !d.begin(addr) {
		return nil, ErrStuck
	}
	got := make(chan opened)
	go func() {
		conn, err := d.call(ctx, addr)
		if conn == nil && err == nil {
			err = errNothing
		}
		select {
		case got <- opened{conn, err}:
		case <-ctx.Done():
			if err == nil {
				_ = conn.Close()
			}
		}
	}()
	select {
	case o := <-got:
		return o.conn, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// call calls Func. The call counts as over before Open returns, because the caller of Open may open
// another connection at once.
func (d *Dialer) call(ctx context.Context, addr string) (net.Conn, error) {
	defer d.end(addr)
	return d.Func(ctx, addr)
}

func (d *Dialer) begin(addr string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, stuck := d.opening[addr]; stuck {
		return false
	}
	if d.opening == nil {
		d.opening = make(map[string]struct{})
	}
	d.opening[addr] = struct{}{}
	return true
}

func (d *Dialer) end(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.opening, addr)
}
