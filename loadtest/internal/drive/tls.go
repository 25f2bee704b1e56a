package drive

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"distmsg/internal/tlsline"
)

// secureWithin bounds a TLS handshake.
const secureWithin = 5 * time.Second

// tunnel is TLS for one leg of the wire driver. The handshake runs over the socket, on the
// goroutine that dials. From then on, the event loop owns the socket and the tunnel: crypto/tls
// reads from memory what the loop has read, and writes to memory what the loop will write. So a leg
// with TLS needs no goroutine, either. It takes the same path as without TLS, and a comparison
// shows what TLS costs.
type tunnel struct {
	conn *tlsline.Conn
	out  []byte // what is encrypted and not written yet
}

// secure does the handshake over socket, which leads to addr. If it fails, the socket is closed.
func secure(ctx context.Context, config *tls.Config, socket net.Conn, addr string) (*tunnel, error) {
	t := &tunnel{conn: tlsline.Client(socket, configFor(config, addr))}
	_ = socket.SetDeadline(time.Now().Add(secureWithin))
	interrupt := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	err := t.conn.Handshake()
	if !interrupt() {
		err = context.Cause(ctx)
	}
	if err != nil {
		socket.Close()
		return nil, explainTLS(addr, err)
	}
	_ = socket.SetDeadline(time.Time{})
	t.conn.Detach(func(b []byte) error {
		t.out = append(t.out, b...)
		return nil
	})
	return t, nil
}

// configFor returns the configuration for a connection to addr.
func configFor(config *tls.Config, addr string) *tls.Config {
	config = tlsline.Prepare(config)
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	return config
}

// explainTLS says what to do about a handshake that has failed.
func explainTLS(addr string, err error) error {
	header, wrong := tls.RecordHeaderError{}, (*tls.CertificateVerificationError)(nil)
	switch {
	case errors.As(err, &header):
		return fmt.Errorf("node %s does not use TLS: leave out --tls, or give the address where it does (%w)", addr, err)
	case errors.As(err, &wrong):
		return fmt.Errorf("node %s is not trusted: --tls-ca says who signs its certificate, --tls-server-name what it is called (%w)", addr, err)
	case refusedTLS(err):
		return fmt.Errorf("node %s refuses the TLS handshake: it may want a certificate that it knows, see --tls-cert (%w)", addr, err)
	}
	return fmt.Errorf("node %s: TLS handshake: %w", addr, err)
}

// refusedTLS reports whether err is what the other end has said when it broke off TLS.
func refusedTLS(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && op.Op == "remote error"
}

// open decrypts data and appends it to b. All of data is consumed. io.EOF means that the node has
// said that nothing more will come.
func (t *tunnel) open(b, data []byte) ([]byte, error) {
	t.conn.Feed(data)
	for {
		if cap(b)-len(b) < minRead {
			b = append(b, make([]byte, tlsline.MaxRecord)...)[:len(b)]
		}
		n, err := t.conn.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; n == 0 {
			return b, err
		}
	}
}

const (
	minRead = 1 << 10
	// maxLine is the longest first line of a server.
	maxLine = 16 << 10
)

// seal encrypts b, and the notice that nothing more will come if b is the last. The result contains
// whatever else TLS has to say. It is valid until the next call of open or seal.
func (t *tunnel) seal(b []byte, last bool) (out []byte, err error) {
	if len(b) > 0 {
		err = t.conn.Write(b)
	}
	if err == nil && last {
		t.conn.CloseWrite()
	}
	out, t.out = t.out, t.out[:0]
	return out, err
}

// readLine reads up to the first newline and nothing beyond it.
func readLine(ctx context.Context, conn net.Conn) ([]byte, error) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetReadDeadline(time.Now().Add(welcomeWithin)); err != nil {
		return nil, err
	}
	line, b := []byte(nil), make([]byte, 1)
	for len(line) == 0 || line[len(line)-1] != '\n' {
		if _, err := io.ReadFull(conn, b); err != nil {
			return nil, err
		}
		if line = append(line, b[0]); len(line) > maxLine {
			return nil, errors.New("its first line does not end")
		}
	}
	return line, conn.SetReadDeadline(time.Time{})
}
