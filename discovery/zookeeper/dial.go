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

// dialer decides for zk which server comes next, when, and over what: the servers in turn, under
// their names so that these are resolved each time, and a random pause after each round. zk's own
// way is to resolve once and to pause for exactly one second.
type dialer struct {
	dial     *dialing.Dialer
	patience time.Duration   // for the answer to the handshake
	failed   func(error)     // hears why there is no session
	watched  func() []string // the paths that zk may have watches on
	life     context.Context // ended: no more connections
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
		if d.life.Err() == nil { // it is not our own doing
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

// Next implements zk.HostProvider. It says "all were tried" only at the end, because that is where
// zk asks whether to quit.
func (d *dialer) Next() (server string, retryStart bool) {
	server = d.servers[d.turn%len(d.servers)]
	d.turn++
	return server, d.life.Err() != nil
}

// Connected implements zk.HostProvider. It proves nothing: a server that takes every session and
// ends it at once says so, too.
func (d *dialer) Connected() {}

// lasting is how long a connection has to live for the pauses to be short again.
const lasting = 10 * time.Second

// judge makes the pauses short again if the latest connection has lasted. None at all would let a
// server that closes every connection after a while keep us busy.
func (d *dialer) judge() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wire != nil && time.Since(d.wire.born) >= lasting {
		d.tries = len(d.servers)
	}
	if d.wire != nil {
		_ = d.wire.Close() // zk forgets to when the session has expired
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
	if d.life.Err() != nil { // ended before it could be cut
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

// pause counts an attempt and says how long to wait before it.
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

// wire is a connection that shields zk from what zk cannot take.
//
//   - Peers that are silent or not ZooKeeper: zk waits for the handshake's answer for 6.7 session
//     timeouts, believes whatever length it is told there, and later panics on a frame that is
//     shorter than its header.
//   - Its own watches after a reconnect: it sets them again while it reads, which is a data race.
//     So the end of a connection is told as an event for each watch; then zk has none to set, and
//     the keeper knows that they are gone.
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
	rest     []byte // of frame: not yet given to zk
	ended    error  // the connection is at its end
}

// What zk expects of a frame: its shortest has 16 bytes.
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
