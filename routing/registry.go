package routing

import (
	"context"
	"errors"
	"time"
)

// MaxEpoch is the bound of all epochs: they are below it, so that a registry may do
// its sums in floating point, as Lua does.
const MaxEpoch = 1 << 53

// What a registry believes of times and of clients, as epochs. A clock may be wrong by years, and a
// client may lie. Neither may use up all epochs, and neither may keep an honest session from the
// IDs that it holds: if data was lost, the registry knows no better than its sessions.
const (
	// MaxClock is the greatest epoch that a registry takes from its clock, or from a re-assert as
	// the one to go on minting from. As a time it is in the year 2112.
	MaxClock = MaxEpoch / 2

	// MaxAsserted is the greatest epoch that a re-assert may bring, unless the registry has minted
	// a greater one. Whatever was minted is below it.
	MaxAsserted = MaxEpoch / 4 * 3

	// MaxEpochAhead is how far the epoch of a re-assert may lie ahead of all that the registry
	// knows, its clock and the epochs it has stored, if another session has to make way for it.
	MaxEpochAhead = 24 * time.Hour
)

// Errors of a Registry.
var (
	// ErrUnavailable is wrapped by every error that means that the registry could not
	// be asked: not reachable, too slow, closed, or the context has ended. Of a
	// write, it is then unknown whether it was done. The caller does not retry it by
	// itself (S12); it answers registry_unavailable.
	ErrUnavailable = errors.New("routing: registry unavailable")

	// ErrSessionDead is returned by Attach for a session that has ended. It never
	// comes back (S17); its client needs a new one.
	ErrSessionDead = errors.New("routing: session is dead")
)

// Registry is the cluster-wide truth about who holds an ID and where sessions are
// attached. Every method may be called from any goroutine, and may wait for I/O, so
// never from an event loop.
//
// Bind, Unbind and Lookup take many IDs and answer each by itself, in the order asked;
// operations on one ID in one call are done in order. Each is atomic for its ID, and
// nothing is atomic across IDs. An error means that the registry could not be asked, wraps
// ErrUnavailable, and comes without results. If only some of the IDs could not be asked about, the
// results of those say so.
//
// The caller keeps operations on one ID, and on the presence of one session, in order: the
// next only after the answer to the one before (S12).
type Registry interface {
	// Bind makes sessions the holders of IDs, or says why not. See BindOp.
	Bind(ctx context.Context, ops []BindOp) ([]BindResult, error)

	// Unbind removes exactly the bindings named, by session and epoch (S11).
	Unbind(ctx context.Context, ops []UnbindOp) ([]UnbindResult, error)

	// Lookup tells who holds IDs.
	Lookup(ctx context.Context, ids []string) ([]LookupResult, error)

	// Attach adds p to the presence of a session; a session that is not known becomes
	// so. An entry of the same node and incarnation is replaced if p has the greater
	// serial, and stays if not, which is no error (S16). The error is ErrSessionDead or
	// wraps ErrUnavailable.
	Attach(ctx context.Context, session SessionID, p Presence) error

	// Detach removes the entry of p's node and incarnation unless it has a greater
	// serial than p (S16), and tells how many entries are left, of all nodes. A session
	// that is dead or not known has none. The error wraps ErrUnavailable.
	Detach(ctx context.Context, session SessionID, p Presence) (left int, err error)

	// Presence tells where a session is attached. A session that is not known is
	// attached nowhere; while the registry is rebuilding, it is an error. The error
	// wraps ErrUnavailable.
	Presence(ctx context.Context, session SessionID) (SessionPresence, error)

	// Presences is Presence for many sessions, in the order asked, and asks for all of them at
	// once. It answers each session by itself: one that the registry cannot say anything about is
	// Unknown, whatever becomes of the others. An error means that none could be asked. It wraps
	// ErrUnavailable.
	Presences(ctx context.Context, sessions []SessionID) ([]SessionPresence, error)

	// EndSession makes a session permanently dead, known or not (S17), and removes
	// its bindings; see EndOp. False: it is attached and stays. True also if it was dead
	// before. The error wraps ErrUnavailable.
	//
	// The bindings may go later than EndSession returns. Until then Lookup and Bind may
	// still name the dead session, and a Bind that expects it replaces it.
	EndSession(ctx context.Context, op EndOp) (ended bool, err error)

	// Lost yields a value when the registry has lost data and found out: the caller then
	// re-asserts all bindings and attaches all sessions that it knows (S18). It is one
	// channel, for one receiver; several losses may become one value. Nil: never.
	Lost() <-chan struct{}

	// Rebuilding reports whether bindings and presence may be missing because data was lost,
	// or may have been. Until it is over Lookup and Presence do not say that there is
	// nothing, EndSession without Force is refused with ErrUnavailable, and whoever wants no
	// incumbent replaced should not bind anew. Asks nobody.
	Rebuilding() bool

	// Claims calls f with what the registry says of sessions and of the IDs they hold, some at a
	// time and over and over, until ctx ends. Only the nodes that are named know whether it is
	// true: data that come back from a backup say what was true then. Of all that share the
	// registry one is told at a time, slowly, and passes on what is not its own. f is called by one
	// goroutine and may block. Two calls at a time are one too many.
	Claims(ctx context.Context, f func([]Claim))

	// Probe finds out whether the registry can be relied on: it writes wherever the registry
	// keeps data, as Bind does, for what can be read is no proof of what can be written, and it
	// tells what else was found wrong. An error that wraps ErrUnavailable says that calls fail,
	// all or some. Another says that calls go through and an operator has to put something right.
	Probe(ctx context.Context) error

	// Close releases what the registry holds. After it every call fails with
	// ErrUnavailable. Closing twice does nothing.
	Close() error
}

// Binding says who holds an ID. The zero Binding means nobody.
type Binding struct {
	Session SessionID
	Epoch   uint64
}

// BindOp asks for one ID.
//
// With Epoch 0 it is an application's bind, and the registry mints an epoch: not below
// its clock in microseconds (up to MaxClock), greater than any epoch it has ever stored for the ID,
// be it bound now or not (but for epochs above MaxClock that were only ever asserted), and below
// MaxEpoch (S10). If another session holds the ID, the op must name
// exactly its binding in Expect, or it comes back as Taken (S13); Expect is not looked at
// if nobody or the session itself holds the ID.
//
// With another Epoch it is a re-assert of a bind that was made before. It wins if nobody holds the
// ID, or the session itself with the same epoch or a smaller one. It wins over another session with
// a smaller epoch only if it is Known, or if the registry has lost data a short time ago: else it
// would be the word of a client, which can invent epochs, against what the registry has stored
// itself. Expect is not looked at.
type BindOp struct {
	ID      string // 1 to 255 bytes; the registry may keep it
	Session SessionID
	Epoch   uint64  // 0: mint one
	Expect  Binding // the incumbent to replace; zero: nobody
	// of a re-assert: the registry has told the caller of this binding; no client has made it up
	Known bool
	// bind only while it is certain who holds the ID; else, after a loss, it is Unanswered
	Certain bool
}

// BindResult is the answer to a BindOp.
type BindResult struct {
	Status BindStatus

	// Epoch is, if Bound, what the ID is now bound with.
	Epoch uint64

	// Incumbent is, if Bound, the binding of another session that was replaced, to be
	// kicked; if Taken or Superseded, the one that stands. Zero if there is none.
	Incumbent Binding
}

// BindStatus says how a bind ended, in the registry or in a Table.
type BindStatus uint8

const (
	// Bound: the session holds the ID.
	Bound BindStatus = iota + 1
	// Taken: another session holds the ID and was not named in Expect.
	Taken
	// Superseded: a re-assert came too late, the ID has been bound anew since.
	Superseded
	// Dead: the session has ended and can hold nothing.
	Dead
	// Invalid: a re-assert with an epoch that nobody is believed to have minted. It is above
	// MaxAsserted; or another session holds the ID, and it is further ahead than MaxEpochAhead, or
	// not Known. That is a suspicion and no verdict, for clocks may be wrong: the session may ask
	// again.
	Invalid
	// Unanswered: the registry could not be asked about this ID, as ErrUnavailable says it of a
	// whole call. It is unknown whether the bind was done.
	Unanswered
)

// String returns the status as a lower-case word, for logs.
func (s BindStatus) String() string {
	switch s {
	case Bound:
		return "bound"
	case Taken:
		return "taken"
	case Superseded:
		return "superseded"
	case Dead:
		return "dead"
	case Invalid:
		return "invalid"
	case Unanswered:
		return "unanswered"
	}
	return "unknown"
}

// UnbindOp names one binding to remove.
type UnbindOp struct {
	ID      string
	Session SessionID
	Epoch   uint64
}

// UnbindResult is the answer to an UnbindOp.
type UnbindResult struct {
	Removed bool // false: the ID is not bound, or not so
	// the registry could not be asked about this ID; it is unknown whether it was removed
	Unanswered bool
}

// LookupResult is the answer for one ID of a Lookup.
type LookupResult struct {
	Binding Binding // zero: nobody holds it
	// the binding is zero because it may have been lost (S18), or could not be read: it is not to
	// be remembered
	Unknown bool
}

// Presence is one node where a session is attached.
type Presence struct {
	Node        string // node ID
	Incarnation uint64 // of the node; a number that it never had before, in no order
	Serial      uint64 // of the attach, from Table.Attach
}

// SessionPresence is all that the registry knows of a session.
type SessionPresence struct {
	Dead    bool       // it has ended and will not come back
	Nodes   []Presence // where it is attached, in no order; whether a node lives, others know
	Unknown bool       // of Presences: the registry did not say, and the rest is zero
}

// Claim is what the registry says of one session.
type Claim struct {
	Session SessionID
	At      []Presence // where it is attached; empty: nowhere that lives, and it is about to end
	Bound   []BoundID  // some of what it holds; empty: the claim is about where it is
}

// EndOp asks for the end of a session. It is a compare-and-swap: the session ends only
// if it is attached nowhere but at entries in Gone, so an attach that came in the
// meantime wins.
type EndOp struct {
	Session SessionID
	Gone    []Presence // entries that count as absent, because their node is dead
	Force   bool       // end it wherever it is attached: it said goodbye

	// Bound is what the caller knows of its bindings, from Table.EndSession. Those go
	// soon, others perhaps much later.
	Bound []BoundID
}
