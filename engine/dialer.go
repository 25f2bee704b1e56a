package engine

import (
	"context"
	"fmt"
	"net"
)

// InProcessAddr is the address of an engine for clients in its own process. Use it in
// client.Config.Nodes together with [Engine.Dialer]. Nobody can connect to it from outside.
const InProcessAddr = "in-process:1"

// Dialer returns a function for client.Config.Dialer. A client with it runs in the engine's own
// process and connects to the engine in memory:
//
//	session, err := client.Dial(ctx, client.Config{
//		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(),
//	})
//
// Its sessions have the same outcomes, order and limits as sessions over the network, but the node
// trusts them. It does not call Hooks.Authenticate for them, does not count them in MaxConns, does
// not end them when they are silent, and does not ask them to move when it drains. Such a session
// holds any number of IDs, so one session per event loop is enough for all users of an application.
// The engine gives new connections to its loops in turn.
//
// The function waits until the engine is ready, or until its context ends. It returns an error if
// Run has ended, and for any address but [InProcessAddr]. Any goroutine may call Dialer and the
// function.
func (e *Engine) Dialer() func(ctx context.Context, addr string) (net.Conn, error) {
	return e.DialerAs(Identity{})
}

// DialerAs is like Dialer, but gives the sessions an identity: the value that Hooks.Authenticate
// would have returned.
func (e *Engine) DialerAs(identity Identity) func(ctx context.Context, addr string) (net.Conn, error) {
	login, invalid := newLogin(identity)
	return func(ctx context.Context, addr string) (net.Conn, error) {
		if err := mayBegin(ctx); err != nil {
			return nil, err
		}
		if invalid != nil {
			return nil, fmt.Errorf("engine: %w", invalid)
		}
		if addr != InProcessAddr {
			return nil, fmt.Errorf("engine: Engine.Dialer connects only to %s, not to %s", InProcessAddr, addr)
		}
		select {
		case <-e.ready:
		case <-e.stopped:
			return nil, ErrStopped
		case <-ctx.Done():
			return nil, fmt.Errorf("engine: not ready: %w", contextError(ctx))
		}
		if e.serving.Err() != nil {
			return nil, ErrStopped
		}
		return e.connectInMemory(login), nil
	}
}

// connectInMemory makes a pipe and posts its connection to a loop. The loop gets the connection
// before anything that the client writes.
func (e *Engine) connectInMemory(login *login) net.Conn {
	c := newConn(insideConn, memoryAddr{}, e.cfg.MaxPending)
	c.loop = e.loops[e.nextLoop.Add(1)%uint64(len(e.loops))]
	p := &pipe{conn: c, login: login}
	p.pump = p.take
	p.up.changed.L, p.down.changed.L = &p.up.mu, &p.down.mu
	c.wire = p
	e.acceptor.inside.tryAdmit(c) // it has no limit
	c.loop.post(func() { c.loop.welcomeSocket(c) })
	return &clientEnd{p}
}

// inMemory returns the connection's pipe. It returns nil if the connection has a socket, or has
// lost its pipe.
func (c *conn) inMemory() *pipe {
	p, _ := c.wire.(*pipe)
	return p
}
