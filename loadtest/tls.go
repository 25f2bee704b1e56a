package loadtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// secureWithin bounds a TLS handshake.
const secureWithin = 5 * time.Second

// tunnel is TLS for one leg of the wire driver. The handshake runs over the socket, on the
// goroutine that dials. From then on, the event loop owns the socket and the tunnel: crypto/tls
// reads from memory what the loop has read, and writes to memory what the loop will write. So a leg
// with TLS needs no goroutine, either. It takes the same path as without TLS, and a comparison
// shows what TLS costs.
type tunnel struct {
	conn *tls.Conn
	carrier
}

// carrier is the net.Conn below crypto/tls.
type carrier struct {
	net.Conn        // the socket during the handshake; nil from then on
	in       []byte // what came in and is not decrypted yet
	out      []byte // what is encrypted and not written yet
}

// Read returns a time-out if there is nothing to read at the moment. crypto/tls then keeps the part
// of a record that it has read, and goes on with the next call.
func (c *carrier) Read(b []byte) (int, error) {
	if c.Conn != nil {
		return c.Conn.Read(b)
	}
	if len(c.in) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *carrier) Write(b []byte) (int, error) {
	if c.Conn != nil {
		return c.Conn.Write(b)
	}
	c.out = append(c.out, b...)
	return len(b), nil
}

// SetWriteDeadline is called by crypto/tls for its last words.
func (c *carrier) SetWriteDeadline(t time.Time) error {
	if c.Conn != nil {
		return c.Conn.SetWriteDeadline(t)
	}
	return nil
}

// secure does the handshake over socket, which leads to addr. If it fails, the socket is closed.
func secure(ctx context.Context, config *tls.Config, socket net.Conn, addr string) (*tunnel, error) {
	ctx, cancel := context.WithTimeout(ctx, secureWithin)
	defer cancel()
	t := &tunnel{carrier: carrier{Conn: socket}}
	t.conn = tls.Client(&t.carrier, configFor(config, addr))
	if err := t.conn.HandshakeContext(ctx); err != nil {
		socket.Close()
		return nil, explainTLS(addr, err)
	}
	t.carrier.Conn = nil
	return t, nil
}

// configFor returns the configuration for a connection to addr.
func configFor(config *tls.Config, addr string) *tls.Config {
	config = config.Clone()
	config.Renegotiation = tls.RenegotiateNever
	config.DynamicRecordSizingDisabled = true // what is written at once is one record, or few
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
	t.in = data
	for {
		if cap(b)-len(b) < minRead {
			b = append(b, make([]byte, maxRecord)...)[:len(b)]
		}
		n, err := t.conn.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.in = nil
			return b, nil
		case err != nil:
			return b, err
		}
	}
}

const (
	minRead   = 1 << 10
	maxRecord = 16 << 10
)

// seal encrypts b, and the notice that nothing more will come if b is the last. The result contains
// whatever else TLS has to say. It is valid until the next call of open or seal.
func (t *tunnel) seal(b []byte, last bool) (out []byte, err error) {
	if len(b) > 0 {
		_, err = t.conn.Write(b)
	}
	if err == nil && last {
		err = t.conn.CloseWrite()
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
		if line = append(line, b[0]); len(line) > maxRecord {
			return nil, errors.New("its first line does not end")
		}
	}
	return line, conn.SetReadDeadline(time.Time{})
}
