package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"distmsg/codec"
)

const (
	patience = 5 * time.Second // of an attacker, for the answer to hello or bind
	maxIDs   = 1024            // of one bind, lookup or watch
	maxFrame = 1 << 24         // that an attacker accepts from a node
)

// wire is a client's connection that speaks the protocol by hand. It belongs to one goroutine, but
// another one may write while that one reads.
type wire struct {
	nc   net.Conn
	in   []byte // bytes that are not yet part of a returned frame
	seen int    // the length of the frame that next has returned; the next call removes it from in

	session, secret []byte
}

// connect opens a connection to a loopback address. It refuses any other address.
func connect(ctx context.Context, addr string) (net.Conn, error) { return connectFrom(ctx, "", addr) }

// connectFrom is connect from an address of this machine. Empty means any.
func connectFrom(ctx context.Context, from, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	if !to.Addr().IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address; attacks go nowhere else", addr)
	}
	dialer := net.Dialer{Timeout: patience}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return dialer.DialContext(ctx, "tcp", addr)
}

// shake does the TLS handshake of a client. If it fails, the connection is closed.
func shake(ctx context.Context, nc net.Conn, config *tls.Config) (*tls.Conn, error) {
	secure := tls.Client(nc, config)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return secure, nil
}

// join connects to a node and says hello, with all features.
func join(ctx context.Context, addr string) (*wire, error) {
	return joinWith(ctx, addr, codec.FeatureMulticast|codec.FeatureShortNotHere)
}

// joinWith is join with features.
func joinWith(ctx context.Context, addr string, features uint64) (*wire, error) {
	return hello(ctx, addr, nil, codec.Hello{Features: features})
}

// hello connects to a node, with TLS unless config is nil, and says hello as given.
func hello(ctx context.Context, addr string, config *tls.Config, h codec.Hello) (*wire, error) {
	nc, err := connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	if config != nil {
		if nc, err = shake(ctx, nc, config); err != nil {
			return nil, err
		}
	}
	w := &wire{nc: nc}
	h.MinVersion, h.MaxVersion, h.Agent = codec.Version, codec.Version, []byte("attacker")
	_ = nc.SetDeadline(time.Now().Add(patience))
	body, err := w.ask(codec.AppendHello(nil, &h), codec.KindWelcome)
	if err == nil {
		var welcome codec.Welcome
		err = codec.DecodeWelcome(body, &welcome)
		w.session, w.secret = append(w.session, welcome.Session...), append(w.secret, welcome.Secret...)
	}
	_ = nc.SetDeadline(time.Time{})
	if err != nil {
		nc.Close()
		return nil, err
	}
	context.AfterFunc(ctx, func() { nc.Close() })
	return w, nil
}

// write writes frames, and blocks while the node does not read.
func (w *wire) write(frames []byte) error {
	_, err := w.nc.Write(frames)
	return err
}

// ask writes a frame and returns the next frame of a kind. It skips all others.
func (w *wire) ask(frame []byte, kind codec.Kind) ([]byte, error) {
	if err := w.write(frame); err != nil {
		return nil, err
	}
	for {
		got, body, err := w.next()
		if err != nil || got == kind {
			return body, err
		}
	}
}

// next returns the next frame, which is valid until the next call. It answers pings.
func (w *wire) next() (codec.Kind, []byte, error) {
	for {
		w.in = w.in[w.seen:]
		w.seen = 0
		body, n, err := codec.Split(w.in, maxFrame)
		if err != nil {
			return 0, nil, err
		}
		if n == 0 {
			if err := w.fill(); err != nil {
				return 0, nil, err
			}
			continue
		}
		w.seen = n
		kind, err := codec.PeekKind(body)
		if err == nil && kind == codec.KindError {
			var f codec.ErrorFrame
			if err = codec.DecodeError(body, &f); err == nil && f.Flags&codec.ErrorClosing != 0 {
				err = errors.New(f.Fault.String())
			}
		}
		if err != nil || kind != codec.KindPing {
			return kind, body, err
		}
		nonce, err := codec.DecodePing(body)
		if err := errors.Join(err, w.write(codec.AppendPong(nil, nonce))); err != nil {
			return 0, nil, err
		}
	}
}

// fill reads more bytes.
func (w *wire) fill() error {
	const chunk = 64 << 10
	if cap(w.in)-len(w.in) < chunk {
		w.in = append(make([]byte, 0, 2*(len(w.in)+chunk)), w.in...)
	}
	n, err := w.nc.Read(w.in[len(w.in):cap(w.in)])
	w.in = w.in[:len(w.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// bind binds IDs, as many at a time as a frame may have, and returns how many were bound.
func (w *wire) bind(ids [][]byte) (bound int, err error) {
	for seq := uint64(1); len(ids) > 0; seq++ {
		n := min(len(ids), maxIDs)
		list := make([]codec.IDEpoch, n)
		for i, id := range ids[:n] {
			list[i].ID = id
		}
		ids = ids[n:]
		body, err := w.ask(codec.AppendBind(nil, seq, codec.PolicyKickOld, list), codec.KindBound)
		if err != nil {
			return bound, err
		}
		var f codec.Results
		if err := codec.DecodeResults(body, codec.KindBound, &f); err != nil {
			return bound, err
		}
		for r, ok := f.All.Next(); ok; r, ok = f.All.Next() {
			if r.Code == codec.CodeOK {
				bound++
			}
		}
	}
	return bound, nil
}
