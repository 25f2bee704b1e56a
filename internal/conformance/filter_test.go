package conformance

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/client"
	"distmsg/codec"
)

// A known-bad client is the Go SDK behind a connection that commits one fault: it rewrites the
// frames that the client sends (out), or those that it gets to see (in), so that it misreads what
// the node said. A filter returns the frames that go on in place of one; it belongs to one
// connection.
type filter func(kind codec.Kind, frame []byte) [][]byte

// filterConn is such a connection.
type filterConn struct {
	net.Conn
	in, out filter
	// bytes from the node that are no whole frame yet; filtered bytes that wait to be read
	got, held     []byte
	partialWrites []byte
}

func (c *filterConn) Read(b []byte) (int, error) {
	for len(c.held) == 0 {
		chunk := make([]byte, 64<<10)
		n, err := c.Conn.Read(chunk)
		if c.got = append(c.got, chunk[:n]...); err != nil {
			return 0, err
		}
		c.held, c.got = filtered(c.in, c.got)
	}
	n := copy(b, c.held)
	c.held = c.held[n:]
	return n, nil
}

func (c *filterConn) Write(b []byte) (int, error) {
	var out []byte
	out, c.partialWrites = filtered(c.out, append(c.partialWrites, b...))
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// filtered runs the whole frames in b through f. Bytes that are no frames go through as they are.
func filtered(f filter, b []byte) (out, rest []byte) {
	for {
		body, n, err := codec.Split(b, 64<<20)
		if err != nil {
			return append(out, b...), nil
		}
		if n == 0 {
			return out, b
		}
		kind, err := codec.PeekKind(body)
		if f == nil || err != nil {
			out = append(out, b[:n]...)
		} else {
			for _, frame := range f(kind, b[:n:n]) {
				out = append(out, frame...)
			}
		}
		b = b[n:]
	}
}

// through makes a bad client: each of its connections has filters of its own.
func through(filters func() (in, out filter)) Client {
	return sdk(func(cfg *client.Config) {
		cfg.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			c := &filterConn{Conn: nc}
			c.in, c.out = filters()
			return c, nil
		}
	})
}

// on makes a filter that handles frames of one kind.
func on(kind codec.Kind, f func(frame []byte) [][]byte) filter {
	return func(k codec.Kind, frame []byte) [][]byte {
		if k == kind {
			return f(frame)
		}
		return [][]byte{frame}
	}
}

func in(f filter) Client  { return through(func() (filter, filter) { return f, nil }) }
func out(f filter) Client { return through(func() (filter, filter) { return nil, f }) }

// drop makes a filter that swallows a kind.
func drop(kind codec.Kind) filter {
	return on(kind, func([]byte) [][]byte { return nil })
}

// twice makes a filter that doubles a kind.
func twice(kind codec.Kind) filter {
	return on(kind, func(frame []byte) [][]byte { return [][]byte{frame, frame} })
}

// instead makes a filter that puts other frames in the place of a kind.
func instead(kind codec.Kind, frames ...[]byte) filter {
	return on(kind, func([]byte) [][]byte { return frames })
}

// behind makes a filter that puts frames behind those of a kind.
func behind(kind codec.Kind, frames ...[]byte) filter {
	return on(kind, func(frame []byte) [][]byte { return append([][]byte{frame}, frames...) })
}

// changed makes filters that decode a kind, change it, and encode it again.
func changed[T any](kind codec.Kind, decode func([]byte, *T) error, encode func([]byte, *T) []byte, change func(*T)) filter {
	return on(kind, func(frame []byte) [][]byte {
		var f T
		if decode(frame[codec.PrefixLen:], &f) != nil {
			return [][]byte{frame}
		}
		change(&f)
		return [][]byte{encode(nil, &f)}
	})
}

func hello(change func(*codec.Hello)) filter {
	return changed(codec.KindHello, codec.DecodeHello, codec.AppendHello, change)
}

func welcome(change func(*codec.Welcome)) filter {
	return changed(codec.KindWelcome, codec.DecodeWelcome, codec.AppendWelcome, change)
}

func delivered(change func(*codec.Deliver)) filter {
	return changed(codec.KindDeliver, codec.DecodeDeliver, codec.AppendDeliver, change)
}

func acking(change func(*codec.Ack)) filter {
	return changed(codec.KindAck, codec.DecodeAck, codec.AppendAck, change)
}

func returning(change func(*codec.Deliver)) filter {
	return changed(codec.KindNotHere, codec.DecodeNotHere, codec.AppendNotHere, change)
}

func outcome(change func(*codec.Outcome)) filter {
	return changed(codec.KindOutcome, codec.DecodeOutcome, codec.AppendOutcome, change)
}

// binding makes a filter that changes the IDs and epochs of binds.
func binding(change func([]codec.IDEpoch) []codec.IDEpoch) filter {
	return on(codec.KindBind, func(frame []byte) [][]byte {
		var f codec.Bind
		if codec.DecodeBind(frame[codec.PrefixLen:], len(frame), &f) != nil {
			return [][]byte{frame}
		}
		return [][]byte{codec.AppendBind(nil, f.Seq, f.Policy, change(ids(f.IDs)))}
	})
}

// closing makes a filter that rewrites the fault of errors that end a connection.
func closing(to codec.Fault) filter {
	return changed(codec.KindError, codec.DecodeError, codec.AppendError, func(f *codec.ErrorFrame) {
		if f.Flags&codec.ErrorClosing != 0 {
			f.Fault = to
		}
	})
}

// later makes a bad client whose first connection is good.
func later(in, out filter) Client {
	var n atomic.Int32
	return through(func() (filter, filter) {
		if n.Add(1) == 1 {
			return nil, nil
		}
		return in, out
	})
}

// closesOn makes a bad client that takes some frames for broken and closes its connection.
func closesOn(broken func(k codec.Kind, body []byte) bool) Client {
	return in(func(k codec.Kind, frame []byte) [][]byte {
		if broken(k, frame[codec.PrefixLen:]) {
			return [][]byte{{0, 0, 0, 0}}
		}
		return [][]byte{frame}
	})
}

// everyTenth makes a filter that loses every tenth frame of a kind.
func everyTenth(kind codec.Kind) filter {
	n := 0
	return on(kind, func(frame []byte) [][]byte {
		if n++; n%10 == 0 {
			return nil
		}
		return [][]byte{frame}
	})
}

// reporting makes a filter that sees the client's reports.
func reporting(f func(report string, frame []byte) [][]byte) filter {
	return on(codec.KindSend, func(frame []byte) [][]byte {
		var s codec.Send
		if codec.DecodeSend(frame[codec.PrefixLen:], &s) != nil || string(s.To) != Report {
			return [][]byte{frame}
		}
		return f(string(s.Payload), frame)
	})
}

// behindReport makes a filter that puts frames behind a report.
func behindReport(report string, frames ...[]byte) filter {
	return reporting(func(r string, frame []byte) [][]byte {
		if r == report {
			return append([][]byte{frame}, frames...)
		}
		return [][]byte{frame}
	})
}

// dropReports makes a filter that swallows reports.
func dropReports(prefix string) filter {
	return reporting(func(r string, frame []byte) [][]byte {
		if strings.HasPrefix(r, prefix) {
			return nil
		}
		return [][]byte{frame}
	})
}

// kicking makes a filter that changes kicks; change returns false for one that is swallowed.
func kicking(change func(id string, epoch *uint64) bool) filter {
	return on(codec.KindKick, func(frame []byte) [][]byte {
		id, epoch, err := codec.DecodeKick(frame[codec.PrefixLen:])
		if err == nil && !change(string(id), &epoch) {
			return nil
		}
		return [][]byte{codec.AppendKick(nil, string(id), epoch)}
	})
}

// bindFrames are n binds of an ID.
func bindFrames(id string, n int) (frames [][]byte) {
	for i := range n {
		frames = append(frames, codec.AppendBind(nil, uint64(900+i), codec.PolicyKickOld, []codec.IDEpoch{{ID: []byte(id)}}))
	}
	return frames
}

// behindBind makes a filter that puts frames behind the first bind of an ID.
func behindBind(id string, frames ...[]byte) filter {
	done := false
	return on(codec.KindBind, func(frame []byte) [][]byte {
		var f codec.Bind
		if done || codec.DecodeBind(frame[codec.PrefixLen:], len(frame), &f) != nil || string(ids(f.IDs)[0].ID) != id {
			return [][]byte{frame}
		}
		done = true
		return append([][]byte{frame}, frames...)
	})
}

// unbindsZero is a filter that takes epoch 0 for every unbind.
var unbindsZero = on(codec.KindUnbind, func(frame []byte) [][]byte {
	var f codec.Unbind
	_ = codec.DecodeUnbind(frame[codec.PrefixLen:], len(frame), &f)
	all := ids(f.IDs)
	for i := range all {
		all[i].Epoch = 0
	}
	return [][]byte{codec.AppendUnbind(nil, f.Seq, all)}
})

// dropsAsserts is a filter that swallows binds under an epoch.
var dropsAsserts = on(codec.KindBind, func(frame []byte) [][]byte {
	var f codec.Bind
	if codec.DecodeBind(frame[codec.PrefixLen:], len(frame), &f) == nil && ids(f.IDs)[0].Epoch > 0 {
		return nil
	}
	return [][]byte{frame}
})

// supersededIsOK is a filter that makes ok of superseded.
var supersededIsOK = on(codec.KindBound, func(frame []byte) [][]byte {
	var f codec.Results
	_ = codec.DecodeResults(frame[codec.PrefixLen:], codec.KindBound, &f)
	var results []codec.Result
	for r, ok := f.All.Next(); ok; r, ok = f.All.Next() {
		if r.Code == codec.CodeSuperseded {
			r.Code = codec.CodeOK
		}
		results = append(results, r)
	}
	return [][]byte{codec.AppendResults(nil, codec.KindBound, f.Seq, results)}
})

// withoutAckTo makes a bad client that never acks the message with a payload.
func withoutAckTo(payload string) Client {
	return through(func() (in, out filter) {
		var mu sync.Mutex
		var token string
		in = delivered(func(f *codec.Deliver) {
			mu.Lock()
			defer mu.Unlock()
			if string(f.Payload) == payload {
				token = string(f.Token)
			}
		})
		out = on(codec.KindAck, func(frame []byte) [][]byte {
			mu.Lock()
			defer mu.Unlock()
			var f codec.Ack
			if codec.DecodeAck(frame[codec.PrefixLen:], &f) == nil && string(f.Token) == token {
				return nil
			}
			return [][]byte{frame}
		})
		return in, out
	})
}

// secondOutcome makes a filter that swallows the first outcome of each send.
func secondOutcome() filter {
	seen := map[uint64]bool{}
	return on(codec.KindOutcome, func(frame []byte) [][]byte {
		var f codec.Outcome
		_ = codec.DecodeOutcome(frame[codec.PrefixLen:], &f)
		if !seen[f.Seq] {
			seen[f.Seq] = true
			return nil
		}
		return [][]byte{frame}
	})
}

// sendsAgain makes a filter, for all connections, that sends what was sent to carol once more
// before a later report.
func sendsAgain() filter {
	var mu sync.Mutex
	var saved []byte
	return on(codec.KindSend, func(frame []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		var f codec.Send
		_ = codec.DecodeSend(frame[codec.PrefixLen:], &f)
		if string(f.To) == "carol" {
			f.Seq = 1 << 40
			saved = codec.AppendSend(nil, &f)
			return [][]byte{frame}
		}
		if saved == nil {
			return [][]byte{frame}
		}
		return [][]byte{saved, frame}
	})
}

// doubles makes a filter that repeats each send to IDs with a prefix, as another message.
func doubles(prefix string) filter {
	return on(codec.KindSend, func(frame []byte) [][]byte {
		var f codec.Send
		if codec.DecodeSend(frame[codec.PrefixLen:], &f) != nil || !strings.HasPrefix(string(f.To), prefix) {
			return [][]byte{frame}
		}
		f.Seq += 1 << 40
		return [][]byte{frame, codec.AppendSend(nil, &f)}
	})
}

// lively is a connection that hears pongs that nobody has sent.
type lively struct {
	net.Conn
	chunks chan []byte
	heard  bool
	rest   []byte
}

func dialLively(ctx context.Context, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &lively{Conn: nc, chunks: make(chan []byte)}
	go func() {
		defer close(c.chunks)
		for {
			chunk := make([]byte, 4096)
			n, err := nc.Read(chunk)
			if err != nil {
				return
			}
			c.chunks <- chunk[:n]
		}
	}()
	return c, nil
}

func (c *lively) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		var silent <-chan time.Time
		if c.heard {
			silent = time.After(1200 * time.Millisecond)
		}
		select {
		case chunk, ok := <-c.chunks:
			if !ok {
				return 0, io.EOF
			}
			c.rest, c.heard = chunk, true
		case <-silent:
			c.rest = codec.AppendPong(nil, 1)
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// deaf is a connection over which nothing is read any more after half a megabyte.
type deaf struct {
	net.Conn
	read   int
	closed chan struct{}
	close  func()
}

func dialDeaf(ctx context.Context, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	closed := make(chan struct{})
	return &deaf{Conn: nc, closed: closed, close: sync.OnceFunc(func() { close(closed) })}, err
}

func (c *deaf) Read(b []byte) (int, error) {
	if c.read > 1<<19 {
		<-c.closed
	}
	n, err := c.Conn.Read(b)
	c.read += n
	return n, err
}

func (c *deaf) Close() error {
	c.close()
	return c.Conn.Close()
}

// ending is a connection that says when it has ended.
type ending struct {
	net.Conn
	end func()
}

func (c *ending) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.end()
	}
	return n, err
}

func (c *ending) Close() error {
	c.end()
	return c.Conn.Close()
}

// storm makes a bad client that dials again and again, with the same short pause, once its first
// connection has ended.
func storm(pause time.Duration) Client {
	return func(ctx context.Context, node, scenario string) (string, error) {
		ended, end := context.WithCancel(ctx)
		good := sdk(func(cfg *client.Config) {
			cfg.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
				nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
				return &ending{nc, end}, err
			}
		})
		go func() { _, _ = good(ctx, node, scenario) }()
		<-ended.Done()
		for ctx.Err() == nil {
			if nc, err := net.Dial("tcp", node); err == nil {
				_, _ = nc.Write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
				_ = nc.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = nc.Read(make([]byte, 4096))
				nc.Close()
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
		return "", nil
	}
}
