package peers

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/wake"
)

const (
	// maxAlike bounds the records with this node's ID that the node checks.
	maxAlike = 16
	// twinPause is the least time between two checks.
	twinPause = 50 * time.Millisecond
	// twinTimeout bounds the check of another node that is listed with this node's ID.
	twinTimeout = time.Second
)

// twins looks for other nodes with this node's ID.
type twins struct {
	// static
	peers *Peers
	doubt chan struct{} // of capacity 1: check now who else has this node's ID

	mu sync.Mutex
	// guarded by mu; records with this node's ID that are not this incarnation's
	alike  []discovery.Record
	unseen bool // guarded by mu; nobody has looked at alike yet
}

// Doubt makes the node check now who else has its name.
func (p *Peers) Doubt() { wake.Nudge(p.twins.doubt) }

// set stores the records with this node's ID. Such a record may be this node's own from before a
// stop. It may also be that of a former process which was killed a moment ago, or of a twin.
func (t *twins) set(own []discovery.Record) {
	self := t.peers.engine.Record().Incarnation
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alike = nil
	for _, r := range own {
		if r.Incarnation != self {
			t.alike = append(t.alike, r)
		}
	}
	if n := len(t.alike) - maxAlike; n > 0 { // a list that is sorted has the newest last
		t.alike = t.alike[n:]
	}
	if len(t.alike) > 0 {
		t.unseen = true
		wake.Nudge(t.doubt)
	}
}

// doubtful reports whether there are records that nobody has checked.
func (t *twins) doubtful() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unseen
}

// run checks who answers for the records that have this node's ID. It does so when they come, and
// every second as long as they are listed, because another node may not be reachable at first.
func (t *twins) run(ctx context.Context) {
	again := time.NewTicker(twinTimeout)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.doubt:
		case <-again.C:
		}
		t.look(ctx)
		select { // anyone can raise a doubt, at any rate, with a hello under this node's name
		case <-ctx.Done():
		case <-time.After(twinPause):
		}
	}
}

// look checks all records with this node's ID once.
func (t *twins) look(ctx context.Context) {
	t.mu.Lock()
	alike := t.alike
	t.mu.Unlock()
	var looks sync.WaitGroup
	for _, r := range alike {
		looks.Go(func() { t.check(ctx, r) })
	}
	looks.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unseen = t.unseen && !slices.Equal(t.alike, alike)
}

// check tests whether another node with this node's ID lives at the address of a record. If it
// does, one of the two ends. While this node is joining, the newcomer ends. Later the node that
// took the name first ends, because the other has started when this one could not be reached.
func (t *twins) check(ctx context.Context, r discovery.Record) {
	p := t.peers
	f, err := p.askWho(ctx, r)
	if err != nil || string(f.Node) != p.self.Node {
		return // the record of one that is gone
	}
	since, own := f.Since, p.self.Identity().Since
	if since == 0 { // it is of a version that does not say
		since = f.Incarnation
	}
	switch {
	case p.isSelf(&f):
	case p.Joining():
		if r.Draining && since > own {
			return // of two that start at once, one may go on
		}
		p.End(errors.New("engine: " + NameTaken(p.self.Node, r.PeerAddr)))
	case r.Draining: // it joins, and will find this one; or it leaves
	case since > own:
		p.End(errors.New("engine: " + NameTaken(p.self.Node, r.PeerAddr)))
	default:
		p.Complain("another node that had this node's ID before runs again, and must end", "node", p.self.Node, "addr", r.PeerAddr)
	}
}

// isSelf reports whether an answer under this node's name is of this process.
func (p *Peers) isSelf(f *codec.PeerChallenge) bool {
	return f.Since == p.self.Identity().Since || f.Incarnation == p.engine.Record().Incarnation
}

// askWho asks a node at an address who it is. It begins a handshake under a temporary name. If the
// node that answers knows the cluster's secret, askWho returns what it says of itself.
func (p *Peers) askWho(ctx context.Context, at discovery.Record) (f codec.PeerChallenge, err error) {
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", at.PeerAddr)
	if err != nil {
		return f, err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	secure, err := p.engine.Secure(nc, at)
	if err != nil {
		return f, err
	}
	hello := p.self.Hello("probe-"+hex.EncodeToString(random(8)), p.engine.Record().Incarnation)
	if _, err := secure.Write(codec.AppendPeerHello(nil, &hello)); err != nil {
		return f, err
	}
	body, err := readFrame(secure)
	if ctx.Err() != nil {
		return f, errSilent
	}
	if err == nil {
		err = decodeChallenge(body, &f)
	}
	if err != nil {
		return f, err
	}
	if p.self.Proves(f.Proof, Accepted, Transcript(&hello, &f)) == nil {
		return f, errStranger
	}
	return f, nil
}

// decodeChallenge decodes the answer to a hello. The error quotes the other node if it refuses.
func decodeChallenge(body []byte, f *codec.PeerChallenge) error {
	var refusal codec.ErrorFrame
	if codec.DecodeError(body, &refusal) == nil {
		return fmt.Errorf("engine: %v: %s", refusal.Fault, refusal.Message)
	}
	return codec.DecodePeerChallenge(body, f)
}

var (
	errStranger = errors.New("engine: the node at this address does not know the cluster's secret")
	errSilent   = errors.New("engine: it accepts connections and does not answer")
)

// readFrame reads one frame of a handshake. No loop is involved.
func readFrame(nc net.Conn) (body []byte, err error) {
	var buf []byte
	for {
		body, n, err := codec.Split(buf, codec.MaxHelloFrame)
		if err != nil || n > 0 {
			return body, err
		}
		chunk := make([]byte, codec.MaxHelloFrame)
		if n, err = nc.Read(chunk); n == 0 {
			return nil, err
		}
		buf = append(buf, chunk[:n]...)
	}
}
