package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"distmsg/codec"
)

// maxWelcome bounds the frames before the node has announced its limits.
const maxWelcome = 1 << 20

// attach opens a connection to the node at addr and exchanges hello and welcome. It resumes the session
// if there is one; if the node cannot believe that (it began anew with another key), it asks for a new
// one.
func (s *Session) attach(ctx context.Context, addr string) (*conn, error) {
	s.mu.Lock()
	id, secret := s.id, s.secret
	s.mu.Unlock()
	c, err := s.attachAs(ctx, addr, id, secret)
	var f *fault
	if id != nil && errors.As(err, &f) && f.Fault == codec.FaultUnauthenticated {
		c, err = s.attachAs(ctx, addr, nil, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("client: node %s: %w", addr, err)
	}
	return c, nil
}

func (s *Session) attachAs(ctx context.Context, addr string, id, secret []byte) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	nc, err := s.cfg.Dialer(ctx, addr)
	if err != nil {
		return nil, err
	}
	interrupt := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	welcome, early, err := s.greet(nc, id, secret)
	if !interrupt() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, errors.Join(ctx.Err(), err)
	}
	c := newConn(s, nc, addr, welcome)
	s.admit(c, welcome)
	c.start(early)
	return c, nil
}

// greet sends hello and reads up to welcome. early is what came behind it.
func (s *Session) greet(nc net.Conn, id, secret []byte) (f *codec.Welcome, early []byte, err error) {
	hello := codec.Hello{
		MinVersion: codec.Version, MaxVersion: codec.Version,
		Credentials: s.cfg.Credentials, Session: id, Secret: secret, Agent: []byte(s.cfg.Agent),
	}
	if id != nil {
		hello.Flags = codec.HelloReplace
	}
	if _, err := nc.Write(codec.AppendHello(nil, &hello)); err != nil {
		return nil, nil, err
	}
	var buf []byte
	for {
		body, n, err := codec.Split(buf, maxWelcome)
		if err != nil {
			return nil, nil, err
		}
		if n > 0 {
			f, err = readWelcome(body)
			return f, buf[n:], err
		}
		chunk := make([]byte, codec.MaxHelloFrame)
		n, err = nc.Read(chunk)
		buf = append(buf, chunk[:n]...)
		if err != nil && n == 0 {
			return nil, nil, fmt.Errorf("no welcome: %w", err)
		}
	}
}

func readWelcome(body []byte) (*codec.Welcome, error) {
	if kind, _ := codec.PeekKind(body); kind == codec.KindError {
		f := new(fault)
		if err := codec.DecodeError(body, &f.ErrorFrame); err != nil {
			return nil, err
		}
		return nil, f
	}
	f := new(codec.Welcome)
	err := codec.DecodeWelcome(body, f)
	return f, err
}

func newConn(s *Session, nc net.Conn, addr string, f *codec.Welcome) *conn {
	c := &conn{
		s: s, nc: nc, addr: addr,
		node: f.Node, limits: f.Limits, resumed: f.Flags&codec.WelcomeResumed != 0,
		// What a node sends carries at most a payload, as what it accepts does, and a little more beside it.
		maxRead:  int(min(f.Limits.MaxFrame, 1<<31)) + codec.FrameOverhead,
		drained:  make(chan codec.Drain, 1),
		dead:     make(chan struct{}),
		requests: make(map[uint64]*request),
	}
	c.limits.MaxPayload = min(c.limits.MaxPayload, math.MaxUint32)
	c.limits.MaxFrame = min(c.limits.MaxFrame, math.MaxUint32)
	c.limits.MaxIDs = min(c.limits.MaxIDs, math.MaxUint32)
	c.wake.L = &c.mu
	c.credit.setLimits(unlimited, int(min(f.Limits.Credit, unlimited)))
	return c
}
