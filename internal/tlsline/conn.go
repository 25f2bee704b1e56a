package tlsline

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const (
	// MaxRecord is how many bytes of the application one record holds.
	MaxRecord = 16 << 10
	// idle is about how many bytes a connection takes after its handshake, apart from its buffers.
	idle = 5 << 10
	// maxBarren bounds the records in a row that bring no data of the application. Parts of a
	// handshake message do not, and crypto/tls keeps them until the message is complete.
	maxBarren = 64 << 10
)

// ErrBarren means that a peer sends records that bring no data.
var ErrBarren = errors.New("tls: too many records without data")

// Conn is one side of a TLS connection. Until Detach one goroutine owns it, and the loop after
// that.
type Conn struct {
	tls  *tls.Conn
	line line
}

// A Pauser hears when a handshake waits for its peer. The goroutine of the handshake calls it.
type Pauser interface {
	// Pause says that the handshake begins to wait for its peer.
	Pause()
	// Resume says that it has work to do. It may wait, and ends the handshake if it returns an
	// error.
	Resume() error
}

// Server makes the server's side of a connection on a socket. pauser may be nil.
func Server(sock net.Conn, config *tls.Config, pauser Pauser) *Conn {
	c := &Conn{line: line{sock: sock, pauser: pauser}}
	c.tls = tls.Server(&c.line, config)
	return c
}

// Client makes the client's side of a connection on a socket.
func Client(sock net.Conn, config *tls.Config) *Conn {
	c := &Conn{line: line{sock: sock}}
	c.tls = tls.Client(&c.line, config)
	return c
}

// Handshake does the handshake. It waits for the peer until the deadline of the socket.
func (c *Conn) Handshake() error {
	l := &c.line
	if l.pauser == nil {
		return c.tls.Handshake()
	}
	// Nothing is computed before the first record has come.
	if err := l.readRecord(); err != nil {
		return err
	}
	if err := l.pauser.Resume(); err != nil {
		return err
	}
	defer l.pauser.Pause()
	return c.tls.Handshake()
}

// Detach takes the connection off its socket after the handshake. From here on emit gets what is
// written. It may keep no slice beyond the call. After it has returned an error, nothing more is
// written.
func (c *Conn) Detach(emit func(b []byte) error) {
	l := &c.line
	l.sock, l.pauser, l.emit, l.barren = nil, nil, emit, 0
}

// Feed gives the connection what was read from the socket. The caller calls Read until there is no
// more. Only then it may change b.
func (c *Conn) Feed(b []byte) { c.line.in = b }

// Read decrypts into b, which has room for MaxRecord bytes or less. If it returns 0 and no error,
// it has taken all input. The error is io.EOF if the peer has ended its side in good order. In some
// cases Read also writes.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.tls.Read(b)
	switch {
	case n > 0:
		c.line.barren = 0
		return n, nil // an error comes again
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return 0, err
	case c.line.barren > maxBarren:
		return 0, ErrBarren
	}
	c.line.most = max(c.line.most, c.line.barren)
	return 0, nil
}

// Write encrypts b, and emits records of up to MaxRecord bytes each.
func (c *Conn) Write(b []byte) error {
	_, err := c.tls.Write(b)
	return err
}

// CloseWrite tells the peer that nothing follows.
func (c *Conn) CloseWrite() { _ = c.tls.CloseWrite() } // if it fails, the connection is broken

// State says what was negotiated, and with whom.
func (c *Conn) State() tls.ConnectionState { return c.tls.ConnectionState() }

// Held returns about how many bytes the connection takes.
func (c *Conn) Held() int { return idle + c.line.size + 2*c.line.most }

// line is the connection below TLS: at first a socket, and memory later.
type line struct {
	sock   net.Conn // until Detach
	pauser Pauser   // until Detach; may be nil
	emit   func(b []byte) error
	failed error // of emit

	in     []byte  // input that TLS has not taken
	header [5]byte // of the record that TLS takes
	taken  int     // bytes of that record that TLS has taken, the header included
	size   int     // of the buffer in which TLS has records
	barren int     // bytes of records since the latest data
	most   int     // the most that barren was when TLS had taken all input
}

// headerLen is the length of a record's header. It ends with the length of the rest.
const headerLen = 5

// missing returns how many bytes are missing from the end of the record that TLS takes.
func (l *line) missing() int {
	if l.taken < headerLen {
		return headerLen - l.taken
	}
	return headerLen + int(l.header[3])<<8 + int(l.header[4]) - l.taken
}

// Read gives TLS input, but nothing of a second record. So TLS never holds more than one.
func (l *line) Read(b []byte) (n int, err error) {
	if len(l.in) == 0 {
		if err := l.more(); err != nil {
			return 0, err
		}
	}
	l.size = max(l.size, l.taken+len(b))
	for n < len(b) && len(l.in) > 0 {
		part := min(l.missing(), len(l.in), len(b)-n)
		if l.taken < headerLen {
			copy(l.header[l.taken:], l.in[:part])
		}
		copy(b[n:], l.in[:part])
		l.in = l.in[part:]
		n += part
		if l.taken += part; l.taken >= headerLen && l.missing() == 0 {
			l.barren += l.taken
			l.taken = 0
			break
		}
	}
	return n, nil
}

// more gets more input, if it may wait for that.
func (l *line) more() error {
	if l.sock == nil {
		return os.ErrDeadlineExceeded
	}
	if l.pauser == nil {
		return l.readRecord()
	}
	l.pauser.Pause()
	if err := l.readRecord(); err != nil {
		return err
	}
	return l.pauser.Resume()
}

// readRecord reads one record from the socket. Of input that does not begin as TLS does, it reads
// as much as crypto/tls needs to see that.
func (l *line) readRecord() error {
	b := make([]byte, headerLen, headerLen+512)
	if _, err := io.ReadFull(l.sock, b); err != nil {
		return err
	}
	if Begins(b) {
		rest := int(b[3])<<8 + int(b[4])
		if rest > maxSealed {
			rest = 0 // crypto/tls refuses it
		}
		b = append(b, make([]byte, rest)...)
		if _, err := io.ReadFull(l.sock, b[headerLen:]); err != nil {
			return err
		}
	}
	l.in = b
	return nil
}

// maxSealed is the most that a record holds after its header.
const maxSealed = MaxRecord + 2048

// Begins reports whether b begins as a record of TLS does: with its type and the major version.
func Begins(b []byte) bool {
	return len(b) > 1 && b[0] >= 20 && b[0] <= 23 && b[1] == 3
}

func (l *line) Write(b []byte) (n int, err error) {
	if l.sock == nil {
		if l.failed == nil {
			l.failed = l.emit(b)
		}
		if l.failed != nil {
			return 0, l.failed
		}
		return len(b), nil
	}
	if l.pauser == nil {
		return l.sock.Write(b)
	}
	l.pauser.Pause()
	if n, err = l.sock.Write(b); err != nil {
		return n, err
	}
	return n, l.pauser.Resume()
}

// The rest of a net.Conn. Who owns the socket closes it, and sets its deadlines. Only a handshake
// asks for addresses, for the functions of its configuration.

func (l *line) Close() error                     { return nil }
func (l *line) LocalAddr() net.Addr              { return l.sock.LocalAddr() }
func (l *line) RemoteAddr() net.Addr             { return l.sock.RemoteAddr() }
func (l *line) SetDeadline(time.Time) error      { return nil }
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }
