package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/limit"
	"distmsg/engine/internal/query"
	"distmsg/engine/internal/token"
	"distmsg/internal/asynclog"
	"distmsg/routing"
)

// Engine is one relay node: its event loops, its sessions and their bindings. A process may run
// several. Any goroutine may call its methods.
type Engine struct {
	// static after New
	cfg      Config
	log      *asynclog.Logger // cfg.Logger; never blocks: loops and lock holders log
	clients  *clientLog
	limits   codec.Limits
	maxFrame int
	reserve  int      // bytes for answers, beyond the bound of a connection's queue
	cluster  *cluster // nil without a cluster
	clk      *clock
	since    uint64 // when this process took its name, in µs since 1970
	seed     maphash.Seed
	tokens   token.Keys
	cpus     sharedCPUs
	secrets  secrets
	table    *routing.Table
	dir      *directory.Directory // the work that may wait for the registry
	desk     *query.Desk          // what operators ask
	ready    chan struct{}
	stopped  chan struct{} // closed when Run has returned
	failed   chan error    // makes Run return; holds only the first error
	hooks    hooks
	acceptor acceptor
	joins    joins     // of clients
	shared   io.Closer // registry that NewShared opened; Run closes it; nil: there is none

	// static after Run has started
	ctx     context.Context // ends when the engine has stopped
	serving context.Context // ends when the engine begins to stop
	loops   []*loop
	client  *gnet.Client
	anchors []net.Conn // see findLoops

	// shared
	running         atomic.Bool
	incarnation     atomic.Uint64
	drain           draining
	rebalance       rebalancing
	history         history
	requestsRefused atomic.Uint64
	mailRounds      mailRounds
	nextLoop        atomic.Uint64 // which loop gets the next client in the same process
	bufs            sharedBufs
	memory          memory
	aside           atomic.Int64 // connections in the loops' aside
	parcels         sync.Pool
	inputs          sync.Pool      // of *written
	background      sync.WaitGroup // goroutines for hooks that may block
	accounts        limit.Book
	terms           atomic.Pointer[nodeTerms] // what the limits in force allow

	fenceMu   sync.Mutex
	lastFence time.Duration // guarded by fenceMu
}

// New makes an engine that does not listen yet. It returns an error that names every field of cfg
// with an invalid value.
func New(cfg Config) (*Engine, error) {
	ownRegistry := cfg.Registry == nil
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	log := asynclog.Wrap(cfg.Logger)
	cfg.Logger = log.Logger
	e := &Engine{
		cfg:      cfg,
		log:      log,
		limits:   cfg.limits(),
		maxFrame: cfg.maxFrame(),
		reserve:  cfg.maxFrame() + outcomeRoom*cfg.MaxInFlight,
		clk:      newClock(),
		seed:     maphash.MakeSeed(),
		tokens:   token.NewKeys(cfg.Loops, cfg.Membership != nil),
		secrets:  newSecrets(&cfg),
		table:    routing.NewTable(),
		ready:    make(chan struct{}),
		stopped:  make(chan struct{}),
		failed:   make(chan error, 1),
		joins:    joins{most: cfg.MaxHandshakes, from: make(map[netip.Addr]int)},
	}
	e.clients = newClientLog(e)
	e.memory = newMemory(&cfg)
	e.terms.Store(cfg.NodeLimits().terms())
	e.hooks.eng, e.drain.eng, e.acceptor.eng, e.mailRounds.eng, e.history.eng = e, e, e, e, e
	e.drain.turn = make(chan struct{}, 1)
	e.rebalance = rebalancing{eng: e, wake: make(chan struct{}, 1)}
	e.acceptor.clients = newPort(cfg.MaxConns, cfg.MaxHandshakes)
	e.acceptor.clients.shaking = newShaking(cfg.TLS, cfg.ProxyFrom, int(max(cfg.MemoryBudget/shakePart/shakeCost, leastShakes)))
	e.acceptor.clients.sources.terms = &e.terms
	// The number of nodes bounds the number of links.
	e.acceptor.peers = newPort(0, cfg.MaxPeerHandshakes)
	e.acceptor.peers.shaking = newShaking(cfg.PeerTLS, nil, cfg.MaxPeerHandshakes)
	e.acceptor.inside = newPort(0, math.MaxInt)
	office := e.officeConfig(ownRegistry)
	e.dir = directory.New(office, hall{e}, porch{e})
	// Only the directory has the registry, so no other code can wait for it.
	e.cfg.Registry = nil
	if cfg.Membership != nil {
		e.cluster = newCluster(e, office.Remote)
	}
	e.desk = query.New(cfg.NodeID, respondent{e}, newQueryLinks(e))
	e.parcels.New = func() any { return new(parcel) }
	e.inputs.New = func() any { return new(written) }
	e.since = uint64(time.Now().UnixMicro())
	e.incarnation.Store(e.since)
	return e, nil
}

// outcomeRoom is how many bytes are reserved for the outcome of each send in flight (S21).
const outcomeRoom = 64

// replyRoom is how many further replies of MaxPayload may be queued while the client keeps reading.
const replyRoom = 32

// ErrAlreadyRun is the error of a second call of Run. Make a new engine with New instead.
var ErrAlreadyRun = errors.New("engine: Run was called before; an engine runs once")

// ErrStopped is wrapped by the errors of an engine whose Run has ended or is about to end.
var ErrStopped = errors.New("engine: the engine has stopped")

// Run listens and serves until ctx ends, and then returns nil. If the engine stops for any other
// reason, Run returns an error. It may be unable to start: the address is taken, or another node
// has its NodeID. Or it may be unable to continue: a listener or an event loop has failed. If ctx
// has ended before the call, Run starts nothing and returns nil. Run returns after all sessions
// have ended and all hooks have returned. An engine runs once.
func (e *Engine) Run(ctx context.Context) error {
	if e.running.Swap(true) {
		return ErrAlreadyRun
	}
	defer close(e.stopped)
	defer e.log.Flush(flushTime)
	defer e.closeRegistry()
	if contextError(ctx) != nil { // nothing to serve
		return nil
	}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	serving, leave := context.WithCancel(ctx)
	defer leave()
	e.ctx, e.serving = inner, serving
	if err := e.acceptor.listen(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := e.startLoops(stop); err != nil {
		return errors.Join(err, e.acceptor.close())
	}
	e.dir.Start(e.ctx)
	var helpers sync.WaitGroup
	err := e.serve(ctx, &helpers)
	leave()
	if stopErr := e.shutdown(stop, &helpers); err != nil {
		return errors.Join(err, stopErr)
	}
	return nil
}

// closeRegistry closes the registry if NewShared opened it.
func (e *Engine) closeRegistry() {
	if e.shared != nil {
		_ = e.shared.Close()
	}
}

// fail makes Run end with err, unless another error came first.
func (e *Engine) fail(err error) {
	select {
	case e.failed <- err:
	default:
	}
}

// serve starts the helpers, joins the cluster, and serves until ctx ends or a part fails.
func (e *Engine) serve(ctx context.Context, helpers *sync.WaitGroup) error {
	helpers.Go(func() { e.tickLoops(e.ctx) })
	helpers.Go(func() { e.dir.Run(e.serving) })
	helpers.Go(func() { e.guardMemory(e.serving) })
	helpers.Go(func() { e.rebalance.run(e.serving) })
	helpers.Go(func() { e.history.run(e.serving) })
	if e.cluster != nil {
		helpers.Go(func() { e.acceptor.accept(e.acceptor.peerListener, e.acceptor.peers, e.cluster) })
		helpers.Go(func() { e.cluster.peers.Run(e.serving) })
		if err := e.cluster.peers.Join(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	if e.acceptor.listener != nil {
		helpers.Go(func() { e.acceptor.accept(e.acceptor.listener, e.acceptor.clients, nil) })
	}
	close(e.ready)
	e.cfg.Logger.Debug("engine ready", "node", e.cfg.NodeID, "addr", e.Addr(), "loops", e.cfg.Loops)
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.failed:
		return err
	}
}

// shutdown ends everything in an order in which nobody misses what is already gone: the listener,
// the connections, the lanes that work on their ends, the loops. It returns the error of an event
// loop.
func (e *Engine) shutdown(stop context.CancelFunc, helpers *sync.WaitGroup) error {
	_ = e.acceptor.close()
	e.desk.Close()
	if e.cluster != nil {
		ctx, cancel := context.WithTimeout(e.ctx, withdrawTime)
		e.cluster.peers.Announcer.Withdraw(ctx)
		cancel()
	}
	e.closeEverybody()
	e.background.Wait()
	e.dir.Hurry()
	hurry := time.AfterFunc(closeGrace, stop) // a registry that hangs must not delay the end
	defer hurry.Stop()
	e.dir.Stop()
	stop()
	helpers.Wait()
	err := e.client.Stop()
	e.dropAnchors()
	for _, l := range e.loops { // their goroutines have ended
		l.abandon()
	}
	e.dir.Close()
	if err != nil {
		return fmt.Errorf("engine: event loops: %w", err)
	}
	return nil
}

// abandon ends what a loop has left open in this process. Nobody runs the loop any more.
func (l *loop) abandon() {
	// Nobody may ring the doorbell: gnet would write to a file descriptor that may have a new
	// owner.
	l.armed.Store(true)
	l.active = true
	// Connections that are open, and those that are closed but linger.
	for _, all := range [][]*conn{slices.Clone(l.conns), l.observed} {
		for _, c := range all {
			if c != nil && c.inMemory() != nil {
				c.closeSocket()
			}
		}
	}
	l.publish()
}

// flushTime bounds how long Run waits at its end for the log's handler.
const flushTime = time.Second

// withdrawTime bounds how long Run waits at its end for the membership.
const withdrawTime = 5 * time.Second

// closeGrace bounds how long clients have to read why their connections end.
const closeGrace = time.Second

// closeEverybody closes every connection with a reason. It waits until the sockets are closed, at
// most for closeGrace.
func (e *Engine) closeEverybody() {
	ctx, cancel := context.WithTimeout(e.ctx, closeGrace) // a loop that has failed does not answer
	defer cancel()
	deadline := ctx.Done()
	ask(ctx, e, func(l *loop) bool {
		for _, c := range l.conns {
			if c != nil {
				c.close(codec.FaultGoingAway, "the node is shutting down")
			}
		}
		return true
	})
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for e.acceptor.clients.sockets()+e.acceptor.peers.sockets()+e.acceptor.inside.sockets()+int(e.acceptor.dialled.Load()) > 0 {
		select {
		case <-deadline:
			return
		case <-poll.C:
		}
	}
}

// startLoops starts gnet as a client engine, which consists of the event loops only, and finds the
// loops. If it cannot find them, it calls stop, so that no loop waits for a CPU, and ends the
// loops.
func (e *Engine) startLoops(stop context.CancelFunc) error {
	e.cpus.share(e.cfg.Loops, e.cfg.CPUs, e.ctx.Done())
	client, err := gnet.NewClient(&handler{eng: e}, gnet.WithNumEventLoop(e.cfg.Loops), gnet.WithReadBufferCap(readBuffer), gnet.WithLogger(gnetLogger{e.cfg.Logger}))
	if err != nil {
		return fmt.Errorf("engine: event loops: %w", err)
	}
	e.client = client
	e.loops = make([]*loop, e.cfg.Loops)
	for i := range e.loops {
		e.loops[i] = newLoop(e, i)
	}
	if err := client.Start(); err != nil {
		return fmt.Errorf("engine: event loops: %w", err)
	}
	if err := e.findLoops(); err != nil {
		e.dropAnchors()
		stop() // no loop waits for another any more
		return errors.Join(fmt.Errorf("engine: event loops: %w", err), client.Stop())
	}
	return nil
}

func (e *Engine) tickLoops(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			for _, l := range e.loops {
				l.ticked.Store(true)
				l.ring()
			}
		}
	}
}

// loopOf returns the loop that belongs to a gnet loop.
func (e *Engine) loopOf(el gnet.EventLoop) *loop {
	for _, l := range e.loops {
		if l.el == el {
			return l
		}
	}
	// All loops are known before the first connection.
	panic("engine: a connection on an unknown event loop")
}

// clock returns the time since the engine was made, including time that the machine was asleep.
func (e *Engine) clock() time.Duration { return e.clk.now() }

// Ready returns a channel that closes when clients can connect, also those in the same process.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// Addr returns the address to which clients connect. It is known once Ready is closed, and nil
// without a listener.
func (e *Engine) Addr() net.Addr {
	if e.acceptor.listener == nil {
		return nil
	}
	return e.acceptor.listener.Addr()
}

// NodeID returns Config.NodeID, or the ID that the engine chose if that is empty.
func (e *Engine) NodeID() string { return e.cfg.NodeID }

// Incarnation returns the node's incarnation. It changes at every start, and after the process was
// stopped for longer than Config.LoopGap.
func (e *Engine) Incarnation() uint64 { return e.incarnation.Load() }

// members returns the nodes that the node announces to clients.
func (e *Engine) members() []codec.Member {
	if e.cluster == nil {
		return e.self()
	}
	return e.cluster.peers.Members.List()
}

// membersFor returns the nodes for one client. It is empty for a client in the same process, which
// stays at this node.
func (e *Engine) membersFor(c *conn) []codec.Member {
	if c.inMemory() != nil {
		return nil
	}
	return e.members()
}

// self returns this node's entry in the lists that clients get. It returns nil if clients cannot
// connect, or may not any more.
func (e *Engine) self() []codec.Member {
	// Nobody can connect to a wildcard address.
	wildcard := e.acceptor.listener != nil && e.acceptor.listener.Addr().(*net.TCPAddr).IP.IsUnspecified()
	if e.acceptor.listener == nil || e.drain.begun.Load() || wildcard && e.cfg.Advertise == "" {
		return nil
	}
	return []codec.Member{{Node: e.cfg.NodeID, Addr: e.advertised(e.cfg.Advertise, e.acceptor.listener)}}
}

func (e *Engine) newParcel() *parcel { return e.parcels.Get().(*parcel) }

func (e *Engine) recycle(p *parcel) {
	clear(p.chunks) // their buffers have moved on
	p.chunks, p.notes, p.data = p.chunks[:0], p.notes[:0], p.data[:0]
	e.parcels.Put(p)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func randomHex(n int) string { return hex.EncodeToString(randomBytes(n)) }
