package routing

import (
	"context"
	"errors"
	"time"
)

// MaxEpoch bounds all epochs: they are below it, so that a registry may calculate in floating
// point, as Lua does.
const MaxEpoch = 1 << 53

// These limits, as epochs, say how far a registry trusts clocks and clients. A clock may be wrong
// by years, and a client may lie. Neither may use up all epochs, and neither may take IDs from an
// honest session that holds them: after a loss of data, the registry knows no more than its
// sessions.
const (
	// MaxClock is the greatest epoch that a registry takes from its clock, or from a re-assert as
	// the base for later epochs. As a time, it is in the year 2112.
	MaxClock = MaxEpoch / 2

	// MaxAsserted is the greatest epoch that a re-assert may have, unless the registry has minted a
	// greater one. All minted epochs are below it.
	MaxAsserted = MaxEpoch / 4 * 3

	// MaxEpochAhead applies if another session would lose the ID. It is how far the epoch of a
	// re-assert may then be ahead of the registry's clock and of all epochs that it has stored.
	MaxEpochAhead = 24 * time.Hour
)

// Errors of a Registry.
var (
	// ErrUnavailable is wrapped by every error which means that the registry could not be asked: it
	// cannot be reached, is too slow or closed, or the context has ended. Then it is unknown
	// whether a write was done. The caller does not retry it automatically (S12), but answers
	// registry_unavailable.
	ErrUnavailable = errors.New("routing: registry unavailable")

	// ErrSessionDead is returned by Attach for a session that has ended. It never
	// comes back (S17); its client needs a new one.
	ErrSessionDead = errors.New("routing: session is dead")
)

// Registry is the cluster-wide authority on who holds an ID and where sessions are attached. Any
// goroutine may call every method, except an event loop, because methods may wait for I/O.
//
// Bind, Unbind and Lookup take many IDs and answer each separately, in the order of the request.
// Operations on one ID in one call are done in order. Each is atomic for its ID, and nothing is
// atomic across IDs. An error means that the registry could not be asked. It wraps ErrUnavailable
// and comes without results. If the registry could not be asked about some of the IDs, the results
// of those IDs say so.
//
// The caller must keep operations on one ID, and on the presence of one session, in order: it
// starts the next only after the answer to the one before (S12).
type Registry interface {
	// Bind makes sessions the holders of IDs, or returns why not. See BindOp.
	Bind(ctx context.Context, ops []BindOp) ([]BindResult, error)

	// Unbind removes exactly the named bindings, by session and epoch (S11).
	Unbind(ctx context.Context, ops []UnbindOp) ([]UnbindResult, error)

	// Lookup returns who holds the IDs.
	Lookup(ctx context.Context, ids []string) ([]LookupResult, error)

	// Attach adds p to the presence of a session. It creates a session that is not known. It
	// replaces an entry of the same node and incarnation if p has the greater serial. Otherwise the
	// entry stays, which is not an error (S16). The error is ErrSessionDead or wraps
	// ErrUnavailable.
	Attach(ctx context.Context, session SessionID, p Presence) error

	// Detach removes the entry of p's node and incarnation unless it has a greater serial than p
	// (S16), and returns how many entries are left, of all nodes. A dead or unknown session has
	// none. The error wraps ErrUnavailable.
	Detach(ctx context.Context, session SessionID, p Presence) (left int, err error)

	// Presence returns where a session is attached. An unknown session is not attached anywhere;
	// while the registry is rebuilding, Presence returns an error for it. The error wraps
	// ErrUnavailable.
	Presence(ctx context.Context, session SessionID) (SessionPresence, error)

	// Presences is Presence for many sessions, in the order of the request, with one call to the
	// registry. It answers each session separately: a session is Unknown if the registry cannot
	// answer for it, independently of the others. An error means that the registry could not be
	// asked at all. It wraps ErrUnavailable.
	Presences(ctx context.Context, sessions []SessionID) ([]SessionPresence, error)

	// EndSession makes a session permanently dead, known or not (S17), and removes its bindings;
	// see EndOp. It returns false if the session is attached and therefore stays. It returns true
	// also if the session was already dead. The error wraps ErrUnavailable.
	//
	// The bindings may be removed after EndSession has returned. Until then Lookup and Bind may
	// still name the dead session, and a Bind that expects it replaces it.
	EndSession(ctx context.Context, op EndOp) (ended bool, err error)

	// Lost yields a value when the registry has noticed that it has lost data. The caller then
	// re-asserts all bindings and attaches all sessions that it knows (S18). It is one channel for
	// one receiver, and several losses may become one value. A nil channel never yields a value.
	Lost() <-chan struct{}

	// Rebuilding reports whether bindings and presence may be missing because data was lost or may
	// have been lost. Until that is over, Lookup and Presence do not report that there is nothing,
	// EndSession without Force returns ErrUnavailable, and a caller that must not replace a holder
	// should not make new binds. It does no I/O.
	Rebuilding() bool

	// Claims calls f with what the registry says about sessions and the IDs that they hold, some at
	// a time and again and again, until ctx ends. Only the nodes that are named know whether that
	// is true: data from a backup say what was true earlier. Of all nodes that share the registry,
	// one at a time receives the claims, slowly, and passes those that name other nodes on to them.
	// One goroutine calls f, and f may block. There must not be two calls of Claims at once.
	Claims(ctx context.Context, f func([]Claim))

	// Probe checks whether the registry is reliable. It writes, as Bind does, wherever the registry
	// stores data, because a successful read does not prove that writes succeed. It also returns
	// what else was found wrong. An error that wraps ErrUnavailable says that all or some calls
	// fail. Any other error says that calls succeed but an operator must correct something.
	Probe(ctx context.Context) error

	// Close releases the registry's resources. Later calls fail with ErrUnavailable. A second Close
	// does nothing.
	Close() error
}

// Binding says who holds an ID. The zero Binding means nobody.
type Binding struct {
	Session SessionID
	Epoch   uint64
}

// BindOp asks for one ID.
//
// With Epoch 0 it is an application's bind, and the registry mints an epoch. The epoch is not below
// the registry's clock in microseconds (up to MaxClock). It is greater than any epoch that the
// registry has ever stored for the ID, whether the ID is bound now or not (except epochs above
// MaxClock that were only asserted). And it is below MaxEpoch (S10). If another session holds the
// ID, the op must name exactly that binding in Expect, or the result is Taken (S13). The registry
// ignores Expect if nobody or the session itself holds the ID.
//
// With another Epoch it is a re-assert of an earlier bind. It wins if nobody holds the ID, or if
// the session itself holds it with the same or a smaller epoch. It wins over another session with a
// smaller epoch only if it is Known, or if the registry has lost data a short time ago. Otherwise a
// client, which can invent epochs, would overrule what the registry has stored itself. The registry
// ignores Expect.
type BindOp struct {
	ID      string // 1 to 255 bytes; the registry may keep it
	Session SessionID
	Epoch   uint64  // 0: mint one
	Expect  Binding // the holder to replace; zero: nobody
	// of a re-assert: the caller has this binding from the registry, so no client has invented it
	Known bool
	// bind only if it is certain who holds the ID; otherwise, after a loss, the result is
	// Unanswered
	Certain bool
}

// BindResult is the answer to a BindOp.
type BindResult struct {
	Status BindStatus

	// Epoch is the epoch of the new binding, if Bound.
	Epoch uint64

	// Incumbent is another binding of the ID, or zero if there is none. If Bound, it is the
	// replaced binding of another session, which must be kicked. If Taken or Superseded, it is the
	// current binding.
	Incumbent Binding
}

// BindStatus says how a bind ended, in the registry or in a Table.
type BindStatus uint8

const (
	// Bound: the session holds the ID.
	Bound BindStatus = iota + 1
	// Taken: another session holds the ID and was not named in Expect.
	Taken
	// Superseded: a re-assert came too late, because there is a newer binding of the ID.
	Superseded
	// Dead: the session has ended and can hold nothing.
	Dead
	// Invalid: a re-assert with an epoch that probably no registry has minted. The epoch is above
	// MaxAsserted; or another session holds the ID, and the epoch is further ahead than
	// MaxEpochAhead, or not Known. This is only a suspicion, because clocks may be wrong, so the
	// session may ask again.
	Invalid
	// Unanswered: the registry could not be asked about this ID. (ErrUnavailable says the same
	// about a whole call.) It is unknown whether the bind was done.
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
	Removed bool // false: the ID does not have this binding
	// the registry could not be asked about this ID; it is unknown whether it was removed
	Unanswered bool
}

// LookupResult is the answer for one ID of a Lookup.
type LookupResult struct {
	Binding Binding // zero: nobody holds it
	// the binding is zero because it may have been lost (S18) or could not be read; do not cache it
	Unknown bool
}

// Presence is one node where a session is attached.
type Presence struct {
	Node        string // node ID
	Incarnation uint64 // of the node: greater at every start, unless its clock steps back
	Serial      uint64 // of the attach, from Table.Attach
}

// SessionPresence is all that the registry knows of a session.
type SessionPresence struct {
	Dead bool // it has ended and will not come back
	// where it is attached, in no order; the registry does not know whether these nodes live
	Nodes   []Presence
	Unknown bool // of Presences: the registry did not answer, and the rest is zero
}

// Claim is what the registry says about one session.
type Claim struct {
	Session SessionID
	At      []Presence // where it is attached; empty: at no live node, so it is about to end
	// some of the IDs that it holds; empty: the claim is only about where it is attached
	Bound []BoundID
}

// EndOp requests the end of a session. It is a compare-and-swap: the session ends only if all its
// presence entries are in Gone, so an attach in the meantime wins.
type EndOp struct {
	Session SessionID
	Gone    []Presence // entries that count as absent, because their node is dead
	Force   bool       // end it even if it is attached, because it said bye

	// Bound is what the caller knows of the session's bindings, from Table.EndSession. The registry
	// removes these soon, and others perhaps much later.
	Bound []BoundID
}
