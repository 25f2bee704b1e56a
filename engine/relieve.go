package engine

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"distmsg/codec"
)

// When connections hold nearly all of the node's memory budget, the node closes those that hold
// most. Then it gives the memory back to the system.

const (
	// memoryEvery is how often the node checks what its connections hold.
	memoryEvery = 100 * time.Millisecond
	// The node gives memory back only if more than the budget divided by giveBackPart (or
	// giveBackLeast bytes) was in use, and no more than that peak divided by giveBackPart still is.
	giveBackPart  = 4
	giveBackLeast = 64 << 20
	// giveBackPause is the least time between two times that the node gives memory back, because
	// each takes a garbage collection.
	giveBackPause = 5 * time.Second
	// The node also gives memory back when its IDs have changed by giveBackIDs, and then by no more
	// than restIDs for restTime. A connection counts as connIDs of them, as it leaves about as much
	// garbage.
	giveBackIDs = 1 << 16
	connIDs     = 8
	restIDs     = 1 << 10
	restTime    = time.Second
	// namedClosings is how many closed connections the log names in a second.
	namedClosings = 10
)

// relief is the state of the goroutine that guards the memory budget.
type relief struct {
	eng      *Engine
	gaveBack time.Time
	burst    idBurst
	scarce   bool // the log says that memory is scarce

	second  time.Time // when the second began in which the log names connections
	named   int
	unnamed int
}

// memoryHolder is a connection that holds memory.
type memoryHolder struct {
	conn   *conn
	loop   *loop
	bytes  int
	weight int // bytes, but fewer for a link, which holds the messages of many connections
	silent int64
}

// guardMemory closes connections and gives memory back until ctx ends.
func (e *Engine) guardMemory(ctx context.Context) {
	r := relief{eng: e}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.memory.crowded:
			r.relieve(ctx)
		case <-tick.C:
			r.look()
		}
	}
}

// relieve closes the connections that hold most until less than memory.hard is held.
func (r *relief) relieve(ctx context.Context) {
	m := &r.eng.memory
	for ctx.Err() == nil {
		answers, ok := ask(ctx, r.eng, func(l *loop) (all []memoryHolder) { return l.memory.holders() })
		excess := m.held.Load() - m.hard
		holders := slices.Concat(answers...)
		if !ok || excess <= 0 || len(holders) == 0 {
			return
		}
		slices.SortFunc(holders, func(a, b memoryHolder) int {
			return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(b.silent, a.silent))
		})
		for _, h := range holders {
			if excess <= 0 {
				break
			}
			named := r.mayName()
			h.loop.post(func() { h.conn.closeForMemory(h.bytes, named) })
			excess -= int64(h.bytes)
		}
	}
}

// mayName reports whether the log should name another connection.
func (r *relief) mayName() bool {
	if now := time.Now(); now.Sub(r.second) >= time.Second {
		r.flushUnnamed()
		r.second, r.named = now, 0
	}
	if r.named < namedClosings {
		r.named++
		return true
	}
	r.unnamed++
	return false
}

func (r *relief) flushUnnamed() {
	if r.unnamed > 0 {
		r.eng.cfg.Logger.Warn("closed more connections that held most of the node's memory budget", "connections", r.unnamed)
		r.unnamed = 0
	}
}

// look logs changes, and gives memory back once the node does not need it any more.
func (r *relief) look() {
	m := &r.eng.memory
	held := m.held.Load()
	if time.Since(r.second) >= time.Second {
		r.flushUnnamed()
	}
	if scarce := m.scarce(held); scarce != r.scarce {
		r.scarce = scarce
		if scarce {
			r.eng.cfg.Logger.Warn("connections hold much of the node's memory budget; the node refuses messages to those that do not read",
				"held", held, "budget", m.budget)
		} else {
			r.eng.cfg.Logger.Info("connections hold little of the node's memory budget again", "held", held, "budget", m.budget)
		}
	}
	r.giveBack(held + r.eng.dir.WatchMemory())
}

// giveBack gives memory back to the system if much was in use and little of it still is, or if many
// IDs were bound or unbound, or many clients came or went, and that is over.
func (r *relief) giveBack(used int64) {
	m, now := &r.eng.memory, time.Now()
	peak := max(m.peak.Load(), used)
	m.peak.Store(peak)
	unused := peak >= min(m.budget/giveBackPart, giveBackLeast) && used <= peak/giveBackPart
	over := r.burst.over(r.eng.table.Len()+connIDs*r.eng.acceptor.clients.sockets(), now)
	if !unused && !over || now.Sub(r.gaveBack) < giveBackPause {
		return
	}
	m.peak.Store(used)
	r.burst.left = r.burst.last
	runtime.GC() // the second collection in a row frees what pools hold
	debug.FreeOSMemory()
	r.gaveBack = time.Now()
}

// idBurst notices when a burst of binds or unbinds, or of connections, is over. Requests to the
// registry leave garbage behind, several times as much as the table keeps of the IDs. An idle node
// hardly allocates, so its next collection could be minutes away.
type idBurst struct {
	left  int       // IDs at the last time that memory was given back
	last  int       // IDs at since
	since time.Time // when the number of IDs changed by more than restIDs
}

// over reports whether ids are many more or fewer than were left, and rest.
func (s *idBurst) over(ids int, now time.Time) bool {
	apart := func(n int) int { return max(ids-n, n-ids) }
	if apart(s.last) > restIDs {
		s.last, s.since = ids, now
		return false
	}
	return apart(s.left) >= giveBackIDs && now.Sub(s.since) >= restTime
}

// scarce reports whether connections hold so much that an operator should know.
func (m *memory) scarce(held int64) bool { return held > m.budget/2 }

// memoryTrouble returns what Health says of memory, or "" if all is well.
func (e *Engine) memoryTrouble() string {
	held := e.memory.held.Load()
	if !e.memory.scarce(held) {
		return ""
	}
	return fmt.Sprintf("connections that do not read, or do not finish their frames, hold %d MiB of the node's memory budget of %d MiB",
		held>>20, e.memory.budget>>20)
}

// holders returns the connections of this loop that hold memory. Closed connections get no more
// time to read.
func (m *loopMemory) holders() (all []memoryHolder) {
	l := m.loop
	for _, c := range l.observed {
		if c.closed() && !c.gone() {
			c.cut()
		}
	}
	for _, c := range l.conns {
		if c == nil {
			continue
		}
		if n := c.holding(); n > 0 {
			h := memoryHolder{conn: c, loop: l, bytes: n, weight: n, silent: l.beats.awake - c.live.lastHeard}
			if c.kind == linkConn {
				h.weight /= linkRoom
			}
			all = append(all, h)
		}
	}
	l.pace.worked(len(l.conns) / scanPerUnit)
	m.say()
	return all
}

// closeForMemory closes a connection that holds much of the node's memory. A client that has not
// read what was sent to it does not hear why.
func (c *conn) closeForMemory(held int, named bool) {
	if c.gone() || c.closed() {
		return
	}
	l := c.loop
	if named {
		args := append(c.who(), "bytes", held, "held", l.eng.memory.held.Load(), "budget", l.eng.memory.budget)
		l.eng.cfg.Logger.Warn("closed a connection that held most of the node's memory budget", args...)
	}
	l.eng.memory.closed.Add(1)
	c.quota.shed()
	fault := codec.FaultSlowConsumer
	if c.out.backlog == 0 {
		fault = codec.FaultIdleTimeout
	}
	c.dropFor(fault, "the node's memory budget is used up, and this connection held most of it")
}
