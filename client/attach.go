package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"distmsg/codec"
	"distmsg/internal/callback"
	"distmsg/internal/tlsline"
)

// maxWelcome bounds the frames before the node has announced its limits.
const maxWelcome = 1 << 20

// attach opens a connection to the node at addr and exchanges hello and welcome. It resumes the
// session if there is one. If the node rejects the session's secret, because it has started with
// another key, attach requests a new session. Each hello has what CredentialsFunc returned for it.
func (k *keepers) attach(ctx context.Context, addr string, credentials *asker) (*conn, error) {
	hello := codec.Hello{
		MinVersion: codec.Version, MaxVersion: codec.Version,
		Features: codec.FeatureMulticast | codec.FeatureShortNotHere, Agent: []byte(k.s.cfg.Agent),
		Heartbeat: uint64(max(k.s.cfg.Heartbeat.Milliseconds(), 1)),
	}
	var err error
	// first, because that may take long
	if hello.Credentials, err = credentials.next(ctx); err != nil {
		return nil, err
	}
	k.s.attachments.mu.Lock()
	hello.Session, hello.Secret = k.s.attachments.id, k.s.attachments.secret
	if k.s.attachments.id != nil && k.s.attachments.mayReplace(addr) {
		hello.Flags = codec.HelloReplace
	}
	k.s.attachments.mu.Unlock()
	c, err := k.attachAs(ctx, addr, &hello)
	// It is the credentials or the session that the node refuses. If there are others by now, as an
	// application fetches new ones when the old ones have expired, the session gets another try.
	for others := true; hello.Session != nil && refused(err); {
		before := hello.Credentials
		if hello.Credentials, err = credentials.next(ctx); err != nil {
			break
		}
		if !others || bytes.Equal(before, hello.Credentials) {
			hello.Session, hello.Secret, hello.Flags = nil, nil, 0
		}
		others = false
		c, err = k.attachAs(ctx, addr, &hello)
	}
	if err != nil {
		return nil, fmt.Errorf("client: node %s: %w", addr, err)
	}
	return c, nil
}

// refused reports whether a node has refused a hello because of what it showed.
func refused(err error) bool {
	var f *fault
	return errors.As(err, &f) && f.Fault == codec.FaultUnauthenticated
}

func (k *keepers) attachAs(ctx context.Context, addr string, hello *codec.Hello) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, k.s.cfg.DialTimeout)
	defer cancel()
	nc, err := k.open(ctx, addr)
	if err != nil {
		return nil, err
	}
	interrupt := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	welcome, early, err := greet(nc, hello)
	if !interrupt() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, errors.Join(ctx.Err(), err)
	}
	c := newConn(k.s, nc, addr, welcome)
	switch err := k.s.attachments.admit(c, welcome); err {
	case errStranger:
		_ = nc.SetWriteDeadline(time.Now().Add(k.s.cfg.DialTimeout))
		// end the new session that the node has made
		_, _ = nc.Write(codec.AppendBye(nil))
		nc.Close()
		return nil, err
	case ErrClosed:
		nc.Close()
		return nil, err
	case errTwice:
		c.start(early) // messages may be on their way, so leave it like any other
		return nil, err
	}
	c.start(early)
	return c, nil
}

var (
	errStranger = errors.New("the node does not know the session, which is attached to another node")
	errTwice    = errors.New("the session is already attached to this node")
)

// greet sends hello and reads until it has welcome. early holds the bytes that came after it.
func greet(nc net.Conn, hello *codec.Hello) (f *codec.Welcome, early []byte, err error) {
	if _, err := nc.Write(codec.AppendHello(nil, hello)); err != nil {
		return nil, nil, err
	}
	var buf []byte
	for {
		body, n, err := codec.Split(buf, maxWelcome)
		if err != nil && tlsline.Begins(buf) {
			err = errWantsTLS
		}
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
			return nil, nil, fmt.Errorf("no welcome: %w", explainAlert(err))
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
		s: s, nc: nc, addr: addr, born: time.Now(),
		node: f.Node, incarnation: f.Incarnation, session: hex.EncodeToString(f.Session), limits: f.Limits,
		resumed: f.Flags&codec.WelcomeResumed != 0, multicasts: f.Features&codec.FeatureMulticast != 0,
		returnsBare: f.Features&codec.FeatureShortNotHere != 0,
		maxRead:     max(int(min(f.Limits.MaxFrame, math.MaxInt32)), codec.MinClientFrame),
		drained:     make(chan codec.Drain, 1),
		reassert:    make(chan uint64, 1),
		relogin:     make(chan order, 1),
		retired:     make(chan struct{}),
		dead:        make(chan struct{}),
		requests:    make(map[uint64]*request),
	}
	c.limits.MaxPayload = min(c.limits.MaxPayload, math.MaxUint32)
	c.limits.MaxFrame = min(c.limits.MaxFrame, math.MaxUint32)
	c.limits.MaxIDs = min(c.limits.MaxIDs, math.MaxUint32)
	c.direct, _ = nc.(direct)
	c.wake.L = &c.mu
	c.credit.setLimits(unlimited, int(min(f.Limits.Credit, unlimited)))
	return c
}

// callDialer calls the application's Dialer. If the Dialer panics or ends its goroutine, only this
// attempt fails.
func (k *keepers) callDialer(ctx context.Context, addr string) (nc net.Conn, err error) {
	if f := callback.Apart(func() { nc, err = k.s.cfg.Dialer(ctx, addr) }); f != nil {
		k.s.failed(f, "Config.Dialer")
		return nil, errors.New("Config.Dialer " + f.How())
	}
	if nc == nil && err == nil {
		return nil, errors.New("Config.Dialer returned neither a connection nor an error")
	}
	return nc, err
}
