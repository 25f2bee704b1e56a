package directory

import (
	"sync"
	"time"

	"distmsg/engine/internal/ranking"
	"distmsg/routing"
)

const (
	// maxOvers bounds how many IDs a node remembers ended bindings of. If there are more, the
	// session that has most loses its oldest (S32).
	maxOvers = 1 << 17
	// overRounds is for how many periods of verification they are remembered. Within one, every
	// node compares the routes that it remembers with the registry.
	overRounds = 2
)

// overs are the ended bindings that a node remembers: for each ID the greatest epoch. All bindings
// of the ID up to that epoch are over, whoever held it. All methods may be called from any
// goroutine.
type overs struct {
	life   time.Duration
	most   int
	table  *routing.Table   // because reading it takes no lock
	holder *routing.Session // of all IDs in it

	mu       sync.Mutex
	sessions map[routing.SessionID]*oversOf // guarded by mu, as all below; those with entries
	largest  ranking.Ranking[*oversOf]      // the same; the one with most is the first
	count    int                            // entries of all
}

// oversOf are the entries of the session that held the IDs.
type oversOf struct {
	session routing.SessionID
	queue   []over // the oldest first
	at      int    // in overs.largest
}

// over is an entry of overs. If a greater epoch replaces it in the table, it stays in the queue
// until it is the oldest.
type over struct {
	id    string
	epoch uint64
	until time.Time
}

// GoesBefore says which session has more entries and, if they have as many, which has the oldest.
func (s *oversOf) GoesBefore(other *oversOf) bool {
	a, b := s.queue, other.queue
	return len(a) > len(b) || len(a) == len(b) && len(a) > 0 && a[0].until.Before(b[0].until)
}

func (s *oversOf) StandsAt(i int) { s.at = i }

func newOvers(life time.Duration, most int) *overs {
	o := &overs{life: life, most: most, table: routing.NewTable(), sessions: make(map[routing.SessionID]*oversOf)}
	o.holder = o.table.OpenSession(routing.NewSessionID(), "")
	return o
}

// has reports whether the binding of an ID with this epoch is over. It also returns false if the
// node no longer remembers. It takes no lock.
func (o *overs) has(id []byte, epoch uint64) bool {
	r, ok := o.table.Lookup(id)
	return ok && epoch <= r.Epoch
}

// add remembers that the bindings of an ID up to epoch are over, on account of the session that
// held it.
func (o *overs) add(session routing.SessionID, id string, epoch uint64, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.has([]byte(id), epoch) {
		return
	}
	o.table.Bind(id, o.holder, epoch)
	s := o.sessions[session]
	if s == nil {
		s = &oversOf{session: session}
		o.sessions[session] = s
		o.largest.Add(s)
	}
	s.queue = append(s.queue, over{id, epoch, now.Add(o.life)})
	o.count++
	o.largest.PutInOrder(s.at)
	for o.table.Len() > o.most {
		o.drop(o.largest[0])
	}
	if o.count >= 2*o.most {
		o.compact()
	}
}

// expire forgets what has been remembered for long enough.
func (o *overs) expire(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.sessions {
		for len(s.queue) > 0 && !s.queue[0].until.After(now) {
			o.drop(s)
		}
	}
}

// compact takes out the entries that greater epochs have replaced. One ID that is bound again and
// again leaves many, and they must not take the place of other IDs. mu is held.
func (o *overs) compact() {
	o.count = 0
	for _, s := range o.sessions {
		kept := make([]over, 0, len(s.queue))
		for _, e := range s.queue {
			if r, ok := o.table.Lookup([]byte(e.id)); ok && r.Epoch == e.epoch {
				kept = append(kept, e)
			}
		}
		s.queue = kept
		o.count += len(kept)
		o.resized(s)
	}
}

// drop forgets the oldest entry of a session. mu is held.
func (o *overs) drop(s *oversOf) {
	oldest := s.queue[0]
	s.queue[0] = over{}
	s.queue = s.queue[1:]
	o.count--
	o.table.Unbind(oldest.id, o.holder, oldest.epoch) // unless a greater epoch has come
	o.resized(s)
}

// resized gives a session that has fewer entries now its place among the others. mu is held.
func (o *overs) resized(s *oversOf) {
	if len(s.queue) == 0 {
		delete(o.sessions, s.session)
		o.largest.Remove(s.at)
		return
	}
	o.largest.PutInOrder(s.at)
}
