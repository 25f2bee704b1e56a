package zookeeper

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"distmsg/internal/dialing"
)

const (
	dialTimeout = time.Second
	minBackoff  = 50 * time.Millisecond
	maxBackoff  = 500 * time.Millisecond
)

// dialer decides for zk which server comes next, when, and over which connection. It tries the
// servers in turn, by name so that the names are resolved each time, and makes a random pause after
// each round. By default, zk resolves the names once and pauses for exactly one second.
type dialer struct {
	dial     *dialing.Dialer
	patience time.Duration   // for the answer to the handshake
	failed   func(error)     // is called with the reason why there is no session
	watched  func() []string // the paths that zk may have watches on
	life     context.Context // after its end there are no more connections
	end      context.CancelFunc

	// Owned by zk's loop.
	servers []string
	turn    int

	mu    sync.Mutex
	tries int   // guarded by mu; since a connection has lasted
	wire  *wire // guarded by mu; the latest
}

var _ zk.HostProvider = (*dialer)(nil)

func newDialer(cfg Config, failed func(error), watched func() []string) *dialer {
	d := &dialer{dial: &dialing.Dialer{Func: cfg.Dialer}, patience: cfg.patience(), watched: watched}
	d.failed = func(err error) {
		if d.life.Err() == nil { // we have not closed it ourselves
			failed(err)
		}
	}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Init implements zk.HostProvider. The servers are in random order already.
func (d *dialer) Init(servers []string) error {
	d.servers = servers
	return nil
}

// Len implements zk.HostProvider.
func (d *dialer) Len() int { return len(d.servers) }

// Next implements zk.HostProvider. It reports that all servers were tried only at the end, because
// only then zk checks whether to quit.
func (d *dialer) Next() (server string, retryStart bool) {
	server = d.servers[d.turn%len(d.servers)]
	d.turn++
	return server, d.life.Err() != nil
}

// Connected implements zk.HostProvider. The call proves nothing: zk also makes it for a server that
// accepts every session and ends it at once.
func (d *dialer) Connected() {}

// lasting is how long a connection must live before the pauses become short again.
const lasting = 10 * time.Second

// judge makes the pauses short again if the latest connection has lasted. It never removes the
// pause, because a server that closes every connection after a while would otherwise keep us busy.
func (d *dialer) judge() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wire != nil && time.Since(d.wire.born) >= lasting {
		d.tries = len(d.servers)
	}
	if d.wire != nil {
		_ = d.wire.Close() // zk forgets to do this when the session has expired
		d.wire = nil
	}
}

// open is the zk.Dialer.
func (d *dialer) open(_, addr string, _ time.Duration) (net.Conn, error) {
	d.judge()
	conn, err := d.openInTurn(addr)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.failed(err)
		return nil, err
	}
	d.wire = &wire{
		Conn: conn, born: time.Now(), failed: d.failed, watched: d.watched,
		limit: time.Now().Add(d.patience), greeting: true,
	}
	if d.life.Err() != nil { // life ended before the connection could be cut
		_ = conn.Close()
	}
	return d.wire, nil
}

func (d *dialer) openInTurn(addr string) (net.Conn, error) {
	pause := time.NewTimer(d.pause())
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-d.life.Done():
	}
	ctx, cancel := context.WithTimeout(d.life, dialTimeout)
	defer cancel()
	return d.dial.Open(ctx, addr)
}

// pause counts an attempt and returns how long to wait before it.
func (d *dialer) pause() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	round, first := d.tries/len(d.servers), d.tries%len(d.servers) == 0
	d.tries++
	if round == 0 || !first {
		return 0
	}
	return rand.N(min(minBackoff<<min(round-1, 10), maxBackoff))
}

// cut closes the connection, if there is one. zk then opens another.
func (d *dialer) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wire != nil {
		_ = d.wire.Close()
	}
}

// wire is a connection that protects zk from input that zk cannot handle.
//
// - Peers that are silent or are not ZooKeeper: zk waits 6.7 session timeouts for the answer to the
// handshake, trusts whatever length stands there, and later panics on a frame that is shorter than
// its header.
// - Its own watches after a reconnect: zk sets them again while it reads, which is a data race. So
// wire reports the end of a connection to zk as an event for each watch. Then zk has no watch to
// set, and the keeper knows that they are gone.
//
// Only zk's reader reads.
type wire struct {
	net.Conn
	born    time.Time
	failed  func(error)
	watched func() []string

	limit    time.Time // for the first frame
	greeting bool      // the first frame has not been read
	frame    []byte
	rest     []byte // of frame: not yet passed to zk
	ended    error  // why the connection has ended
}

// What zk expects of a frame: the shortest has 16 bytes.
const (
	minFrame = 16
	maxFrame = 4 << 20
)

// SetReadDeadline implements net.Conn.
func (w *wire) SetReadDeadline(t time.Time) error {
	if w.greeting && (t.IsZero() || t.After(w.limit)) {
		t = w.limit
	}
	return w.Conn.SetReadDeadline(t)
}

// Read implements net.Conn. It reads whole frames, so that a connection ends between two of them.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.rest) == 0 {
		if w.ended == nil {
			w.readFrame()
		}
		if len(w.rest) == 0 {
			return 0, w.ended
		}
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	w.greeting = w.greeting && len(w.rest) > 0
	return n, nil
}

func (w *wire) readFrame() {
	err := w.fill(4)
	if err != nil {
		err = fmt.Errorf("does not answer: %w", err)
	} else {
		length := binary.BigEndian.Uint32(w.frame)
		if length < minFrame || length > maxFrame {
			err = fmt.Errorf("does not speak ZooKeeper's protocol: a frame of %d bytes", length)
		} else {
			err = w.fill(int(length))
		}
	}
	if err != nil {
		w.frame, w.ended = w.frame[:0], err
		if w.greeting {
			w.failed(fmt.Errorf("%s accepts connections but %w", w.RemoteAddr(), err))
		} else {
			for _, path := range w.watched() {
				w.frame = appendEvent(w.frame, path)
			}
		}
	}
	w.rest, w.frame = w.frame, w.frame[:0]
}

// fill reads n more bytes into frame.
func (w *wire) fill(n int) error {
	had := len(w.frame)
	w.frame = slices.Grow(w.frame, n)[:had+n]
	_, err := io.ReadFull(w.Conn, w.frame[had:])
	return err
}

// appendEvent appends the frame by which a server says that the watches on path are gone, of
// whatever type they were.
func appendEvent(b []byte, path string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(16+12+len(path)))
	b = binary.BigEndian.AppendUint32(b, math.MaxUint32) // request -1: none
	b = binary.BigEndian.AppendUint64(b, math.MaxUint64) // transaction -1: none
	b = binary.BigEndian.AppendUint32(b, 0)              // error: none
	b = binary.BigEndian.AppendUint32(b, uint32(zk.EventNodeDeleted))
	b = binary.BigEndian.AppendUint32(b, uint32(zk.StateSyncConnected))
	b = binary.BigEndian.AppendUint32(b, uint32(len(path)))
	return append(b, path...)
}
