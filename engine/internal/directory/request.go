package directory

import (
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/rights"
	"distmsg/routing"
)

// Request is a bind, unbind, lookup or watch frame, or what a frame has disowned, whose IDs are
// worked on in several lanes. Each lane fills in the results of its own IDs. The last one to finish
// has it answered.
//
// The loop owns a request until Do, and again from Loops.Answer on.
type Request struct {
	Session *routing.Session
	Conn    routing.Handle // the connection that it is on account of
	Kind    codec.Kind     // of the answer; 0: nobody waits for one
	Seq     uint64         // of the frame
	Policy  codec.Policy   // of a bind
	Size    int            // what it is charged to its connection for
	Charged bool           // to its connection, though nobody waits for an answer
	Ended   *atomic.Bool   // its connection has closed; nil: that makes no difference
	Results []codec.Result // one for each ID

	// of a bind: the IDs that its client may bind, nil for all, and why others are refused
	Rights  *rights.Patterns
	Refusal string

	// of a bind or watch: how many IDs the clients of its identity may have bound, or may watch, 0
	// for any number; why more are refused; and how many were, once it is answered
	MostIDs  int
	MostText string
	OverMost int

	dir     *Directory
	since   time.Duration // when it came, on the engine's clock
	items   []item
	refused refusals
	left    atomic.Int32

	restricts bool // it takes IDs from its session, see Restrict
}

// item is one ID of a request.
type item struct {
	id    string
	epoch uint64

	newInSession, newInNode bool // there is room kept for it; guarded by room.mu
	// The lane owns these.
	counted bool // its takeover has been counted, because it has waited (see takeovers)
	took    bool // it has displaced another session
	allowed bool // the hook has allowed it
}

// Verb is what lanes do with the IDs of a request.
type Verb uint8

// The verbs of requests.
const (
	Bind Verb = iota + 1
	Unbind
	Lookup
	Watch
	Release  // of bindings that their session has disowned, see BeginRelease
	bindLate // a bind that has waited, see takeovers
)

// itemSize is about what an ID takes besides its bytes.
const itemSize = 64

// NewRequest makes a request for about n IDs, which has none yet.
func (d *Directory) NewRequest(s *routing.Session, conn routing.Handle, kind codec.Kind, seq uint64, n int) *Request {
	return &Request{Session: s, Conn: conn, Kind: kind, Seq: seq, dir: d, since: d.cfg.Clock(), items: make([]item, 0, n)}
}

// Add adds an ID to a request, and what that takes to Size.
func (r *Request) Add(id string, epoch uint64) {
	r.items = append(r.items, item{id: id, epoch: epoch})
	r.Results = append(r.Results, codec.Result{})
	r.Size += itemSize + len(id)
}

// Reasons returns why IDs of a request were refused, for its answer.
func (r *Request) Reasons() []codec.Reason { return r.refused.reasons }

// Charge adds the bytes of a request to those of all requests under way. They count until the
// request is answered.
func (d *Directory) Charge(r *Request) { d.asked.Add(int64(r.Size)) }

// Asked returns how many bytes all requests under way have.
func (d *Directory) Asked() int64 { return d.asked.Load() }

// Do distributes the IDs of a request to their lanes. The request must have been charged.
func (d *Directory) Do(r *Request, v Verb) {
	var mine [laneCount][]int
	lanes := 0
	for i, it := range r.items {
		if !validID(it.id) {
			r.Results[i].Code = codec.CodeBadID
			continue
		}
		n := d.lanes.of([]byte(it.id))
		if mine[n] == nil {
			lanes++
		}
		mine[n] = append(mine[n], i)
	}
	r.left.Store(int32(lanes) + 1)
	for n, indices := range mine {
		if indices == nil {
			continue
		}
		if !d.lanes.try(n, account{conn: r.Conn}, v, part{r, indices}) {
			r.refuse(indices, codec.CodeOverflow, ReasonRequests)
			r.done()
		}
	}
	r.done()
}

// ReasonRequests is the reason for which a request, or an ID of one, ends with overflow.
const ReasonRequests = "this connection has too many open requests (max-requests)"

// validID reports whether an ID is neither empty nor too long.
func validID(id string) bool { return len(id) > 0 && len(id) <= codec.MaxID }

// Finish answers a request with one code for all its IDs. It takes the place of Do.
func (d *Directory) Finish(r *Request, code codec.Code) {
	for i := range r.Results {
		r.Results[i].Code = code
	}
	r.left.Store(1)
	r.done()
}

// Refuse is Finish with a reason.
func (d *Directory) Refuse(r *Request, code codec.Code, reason string) {
	for i := range r.items {
		r.refused.add(i, reason)
	}
	d.Finish(r, code)
}

// done answers a request when the last lane has finished its part.
func (r *Request) done() {
	if r.left.Add(-1) > 0 {
		return
	}
	r.dir.asked.Add(-int64(r.Size))
	if r.Kind == 0 {
		r.dir.bindings.releases.endAll(r)
	}
	if r.restricts {
		r.dir.restrictAgain(r)
	}
	r.dir.loops.Answer(r)
}

// stillWanted reports whether a part of a request is still to be done. It is not if it has waited
// too long: this node may have been stopped meanwhile, or the registry may have been away. Then the
// client has given up, and others may have bound the IDs since (S24). Nor is it if the connection
// has closed, because its client binds again what it wants.
func (d *Directory) stillWanted(p part) bool {
	switch {
	case p.Ended != nil && p.Ended.Load():
	case d.cfg.Clock()-p.since <= d.cfg.LoopGap:
		return true
	}
	p.fill(p.mine, codec.CodeRegistryUnavailable)
	return false
}

// refusals collects the reasons why IDs of a request were refused. Several lanes add to it.
type refusals struct {
	mu      sync.Mutex
	reasons []codec.Reason // guarded by mu; read by the loop when the lanes are through
	size    int            // guarded by mu
}

// maxReasons bounds the bytes of the reasons in one answer, which must fit into a frame. Further
// reasons are left out.
const maxReasons = 32 << 10

func (f *refusals) add(index int, text string) {
	// what is over is cut off at the border of a character
	text = text[:min(len(text), codec.MaxReason+1)]
	f.mu.Lock()
	defer f.mu.Unlock()
	const perReason = 16 // more than msgpack takes
	if f.size += perReason + len(text); f.size <= maxReasons {
		f.reasons = append(f.reasons, codec.Reason{Index: uint64(index), Text: []byte(text)})
	}
}

func (r *Request) fill(indices []int, code codec.Code) {
	for _, i := range indices {
		r.Results[i].Code = code
	}
}

// refuse is fill with a reason.
func (r *Request) refuse(indices []int, code codec.Code, reason string) {
	r.fill(indices, code)
	for _, i := range indices {
		r.refused.add(i, reason)
	}
}
