package directory

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/keyring"
	"distmsg/internal/asynclog"
	"distmsg/internal/callback"
	"distmsg/routing"
)

// Config is the configuration of a Directory. All fields are static. It has no defaults, because
// the engine has checked its own configuration.
type Config struct {
	Node     string // this node's ID
	Registry routing.Registry
	Own      bool           // the registry is this node's own, and the directory closes it
	Table    *routing.Table // the sessions of this node, with connections and IDs
	// the sessions at other nodes, with links; nil if there are no others
	Remote      *routing.Table
	Log         *slog.Logger // it never waits
	Clock       func() time.Duration
	Incarnation func() uint64 // of this node
	Gone        func(routing.Presence) bool
	Loops       int           // how many event loops there are
	Secrets     *keyring.Ring // sign resume secrets

	ResumeWindow, IdleTimeout, LoopGap time.Duration
	VerifyPeriod, WatchPeriod          time.Duration
	MaxSessionIDs, MaxNodeIDs          int
	MaxRoutes                          int
	MaxWatched, MaxNodeWatched         int
	TakeoverInterval                   time.Duration
	TakeoverBurst                      int

	// Zero stands for the constants of these names. Tests set them.
	AskPause, AnswerTime time.Duration
	MaxKicks             int

	// The application's hooks, which may be nil; see engine.Hooks. They are called in lanes.
	Bind                   func(identity, id string) error
	Kick                   func(session routing.SessionID, identity, id string, epoch uint64)
	SessionUp, SessionDown func(session routing.SessionID, identity string)
}

// Loops is what the directory asks of the event loops. No method may wait: each queues a task for a
// loop and returns. The directory calls them from any goroutine, and some of them with a lock held.
type Loops interface {
	// Kick notifies connections that their session has lost an ID to the binding with that epoch.
	Kick(conns []routing.Handle, id string, epoch uint64)
	// Close ends connections or links.
	Close(conns []routing.Handle, f codec.Fault, detail string)
	// CloseAside ends the connections that have left a session, or have stepped back from it.
	CloseAside(session routing.SessionID, f codec.Fault, detail string)
	// Answer answers a request when its work is done.
	Answer(r *Request)
	// Resolved notifies a loop how messages to some IDs go on.
	Resolved(loop int, all []Resolved)
	// SendersKnown notifies a loop who holds some IDs.
	SendersKnown(loop int, all []Holder)
	// TellChanges notifies the loop of a connection that watches IDs that there are changes. See
	// Directory.Changes.
	TellChanges(conn routing.Handle)
	// Reassert asks the client of a connection to bind all it has again, within that time.
	Reassert(conn routing.Handle, within time.Duration)
	// AskForAll does so too, and calls heard on the loop when the client has had answerTime to
	// bind.
	AskForAll(conn routing.Handle, answerTime time.Duration, heard func(Reply))
}

// Peers is what the directory knows of the links to other nodes. Any goroutine may call its
// methods, which do not wait. A Directory without Remote calls none.
type Peers interface {
	// LinkTo returns the link to the node of a presence entry. It returns false if there is none to
	// that incarnation of the node.
	LinkTo(p routing.Presence) (link routing.Handle, ok bool)
	// Links returns all links.
	Links() []routing.Handle
	// Tell sends control frames to all nodes to which there is a link.
	Tell(frames []byte)
	// TellOne sends control frames over one link, unless very much already waits for that link.
	TellOne(link routing.Handle, frames []byte)
}

// Reply is the result of asking a session for all IDs that it holds.
type Reply uint8

const (
	// NoReply means that there is no answer. The connection has closed, or its client has sent
	// nothing.
	NoReply Reply = iota
	// Replied means that the client lives, and has bound what it holds.
	Replied
)

// Directory is the office of one node. Any goroutine may call its methods. They do not wait for the
// registry unless they say so.
type Directory struct {
	// static
	cfg      Config
	table    *routing.Table // cfg.Table
	remote   *routing.Table // cfg.Remote
	loops    Loops
	peers    Peers
	registry *monitoredRegistry
	lanes    *lanes
	ctx      context.Context // ends when the node has stopped; static after Start

	// The parts, by subject. Each has its own lock.
	bindings  bindings
	sessions  sessions
	presences presences
	upkeep    upkeep
	claims    claims
	news      news
	watcher   *watcher
	resolver  *resolver
	holders   *holders

	asked       atomic.Int64      // bytes of all requests that are under way
	hooksFailed asynclog.SeldomOf // by hook
}

// New makes a directory. It works once Start is called. peers may be nil if cfg.Remote is.
func New(cfg Config, loops Loops, peers Peers) *Directory {
	d := &Directory{cfg: cfg, table: cfg.Table, remote: cfg.Remote, loops: loops, peers: peers}
	d.registry = &monitoredRegistry{Registry: cfg.Registry}
	d.lanes = newLanes(d.bindings.work)
	d.bindings = bindings{dir: d, room: newRoom(d), takeovers: newTakeovers(d)}
	d.sessions = sessions{dir: d}
	d.presences = presences{dir: d, all: make(map[routing.SessionID]*presence)}
	d.upkeep = upkeep{dir: d, soon: make(chan struct{}, 1)}
	d.claims = claims{dir: d, doubts: doubts{
		askPause: cmp.Or(cfg.AskPause, askPause), answerTime: cmp.Or(cfg.AnswerTime, answerTime),
	}}
	d.news = news{dir: d, kicks: kickMemory{most: cmp.Or(cfg.MaxKicks, maxKicks)}}
	if !d.alone() {
		d.news.overs = newOvers(overRounds*cfg.VerifyPeriod, maxOvers)
	}
	d.watcher = newWatcher(d)
	d.resolver = newResolver(d)
	d.holders = newHolders(d)
	return d
}

// Start runs the lanes until Stop. ctx bounds all calls to the registry.
func (d *Directory) Start(ctx context.Context) {
	d.ctx = ctx
	d.lanes.start()
}

// Run keeps the registry, the routes and the watches up to date until ctx ends. It waits for the
// registry.
func (d *Directory) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { d.watcher.run(ctx) })
	if !d.cfg.Own {
		running.Go(func() { d.upkeep.run(ctx) })
		running.Go(func() { d.registry.Claims(ctx, d.claims.heard) })
	}
	if d.alone() {
		return
	}
	running.Go(func() { d.resolver.run(ctx) })
	running.Go(func() { d.holders.run(ctx) })
	running.Go(func() { d.news.keepRoutes(ctx) })
}

// Hurry ends the waits for a turn to bind, because the node stops.
func (d *Directory) Hurry() { d.bindings.takeovers.stop() }

// Stop waits until the lanes have finished the jobs that they have. It waits for the registry.
func (d *Directory) Stop() { d.lanes.stop() }

// Close closes the registry, if it is the node's own.
func (d *Directory) Close() {
	if d.cfg.Own {
		_ = d.registry.Close()
	}
}

// alone reports whether there are no other nodes.
func (d *Directory) alone() bool { return d.remote == nil }

// RegistryTimeout bounds the registry calls of one job.
const RegistryTimeout = 5 * time.Second

// registryContext returns the context of a registry call. The node's own registry never waits.
func (d *Directory) registryContext() (context.Context, context.CancelFunc) {
	if d.cfg.Own {
		return d.ctx, func() {}
	}
	return context.WithTimeout(d.ctx, RegistryTimeout)
}

// Limits are those of the directory's limits that can change, see Config.
type Limits struct{ MaxSessionIDs, MaxNodeIDs, MaxNodeWatched int }

// SetLimits replaces limits. What is beyond the new ones stays. Any goroutine may call it.
func (d *Directory) SetLimits(l Limits) {
	d.bindings.room.setMost(l.MaxSessionIDs, l.MaxNodeIDs)
	d.watcher.setMost(l.MaxNodeWatched)
}

// apart calls a hook and reports whether it returned. If it did not, the log says why and where, at
// most once a second for each hook.
func (d *Directory) apart(name string, hook func()) bool {
	f := callback.Apart(hook)
	if f != nil && d.hooksFailed.Due(name, d.cfg.Clock()) {
		f.Log(d.cfg.Log, "Hooks."+name)
	}
	return f == nil
}

// Busy returns how long the oldest job under way has run, or 0 if there is none.
func (d *Directory) Busy() time.Duration { return d.lanes.busy() }

// Stats is a snapshot of counters; see engine.Stats.
type Stats struct {
	Watched                                       int
	WatchesRefused, IDsRefused                    uint64
	Takeovers, TakeoversDelayed, TakeoversRefused uint64
}

// Stats returns the directory's counters.
func (d *Directory) Stats() Stats {
	t := d.bindings.takeovers
	return Stats{
		Watched:          int(d.watcher.n.Load()),
		WatchesRefused:   d.watcher.refused.Load(),
		IDsRefused:       d.bindings.room.refused.Load(),
		Takeovers:        t.done.Load(),
		TakeoversDelayed: t.delayed.Load(),
		TakeoversRefused: t.refused.Load(),
	}
}
