// Package dialing calls a function of the application's that opens connections, and is not held up
// by it.
package dialing

import (
	"context"
	"errors"
	"net"
	"sync"
)

// ErrStuck says that a call was not made because an earlier one for the same address has not
// returned.
var ErrStuck = errors.New("the Dialer has not returned from an earlier call for this address")

var errNothing = errors.New("the Dialer returned neither a connection nor an error")

// Dialer calls Func, which may ignore its context. All methods may be called from any goroutine.
type Dialer struct {
	// Func opens a connection to addr. It is static.
	Func func(ctx context.Context, addr string) (net.Conn, error)

	mu sync.Mutex
	// guarded by mu; the addresses for which a call of Func has not returned
	opening map[string]struct{}
}

// Open opens a connection and returns ctx's error if ctx ends first; a connection that comes later
// is closed. It returns ErrStuck while an earlier call of Func for this address has not returned,
// so that stuck calls do not pile up. The caller closes the connection.
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

// call calls Func. The call is over before the caller of Open hears of it, who may open another
// connection at once.
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
