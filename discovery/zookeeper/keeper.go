package zookeeper

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"distmsg/discovery"
)

const (
	// retryAfter is the pause after ZooKeeper refused something.
	retryAfter = time.Second
	// grace is how long nodes stay listed after a new connection even if they are not registered:
	// longer than it takes them to register again after ZooKeeper was away.
	grace = 3 * time.Second
)

// keeper brings ZooKeeper in line with what is wanted of it, and the view in line with ZooKeeper.
// All of it is owned by the goroutine that runs it.
type keeper struct {
	m    *Membership
	link *link
	log  *slog.Logger
	dir  string // where the nodes are
	acl  []zk.ACL

	session  int       // of the link, when the keeper last read it
	up       bool      // the same
	since    time.Time // when up was last true, or zk was last renewed
	authed   bool      // zk has the credentials
	prepared bool      // dir exists, and a node may register in it

	entries map[string]entry    // the nodes that are registered, by name
	shown   map[string]entry    // the nodes that readers see
	holding bool                // some of the shown nodes are not registered
	mine    map[string]struct{} // names that may be registered by us
	armed   map[string]struct{} // paths with a watch that has not fired
	// paths whose watch has fired and which have not been read since
	stale map[string]struct{}
	all   bool      // everything is stale
	pzxid int64     // when dir's children last changed, as far as we know
	until time.Time // until then, nodes are not removed from the view
	last  string    // the last complaint

	beyond   int  // how many znodes are not read because there are too many
	overfull bool // the excess was logged
}

// entry is a znode as it was last read.
type entry struct {
	record         discovery.Record // if it has no ID, wrong says why
	wrong          string           // why it is not a node's record
	created, dated int64            // when, in ZooKeeper's time
}

func newKeeper(m *Membership, l *link) *keeper {
	k := &keeper{
		m: m, link: l, since: time.Now(), log: m.cfg.Logger, dir: m.dir, acl: zk.WorldACL(zk.PermAll),
		entries: make(map[string]entry),
		shown:   make(map[string]entry),
		mine:    make(map[string]struct{}),
		armed:   make(map[string]struct{}),
		stale:   make(map[string]struct{}),
	}
	if m.cfg.Auth != "" {
		k.acl = zk.AuthACL(zk.PermAll) // zk's name for what ZooKeeper calls CREATOR_ALL_ACL
	}
	return k
}

func (k *keeper) run(ctx context.Context) {
	relist := time.NewTimer(k.period())
	defer relist.Stop()
	again := time.NewTimer(math.MaxInt64)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.link.wake:
		case <-k.m.ordered:
		case <-again.C:
		case <-relist.C:
			k.all = true
			relist.Reset(k.period())
		}
		k.look()
		if !k.up {
			again.Reset(k.withoutSession())
			continue
		}
		err := k.turn(ctx)
		if ctx.Err() != nil {
			return
		}
		k.complain(err)
		switch {
		case err != nil:
			again.Reset(retryAfter)
		case k.holding:
			again.Reset(max(0, time.Until(k.until)))
		default:
			again.Stop()
		}
	}
}

func (k *keeper) period() time.Duration {
	return time.Duration((0.9 + 0.2*rand.Float64()) * float64(k.m.cfg.Relist))
}

// look reads the link's news.
func (k *keeper) look() {
	up, session, fired := k.link.look()
	for path := range fired {
		delete(k.armed, path)
		k.stale[path] = struct{}{}
	}
	if k.up && (!up || session != k.session) {
		k.log.Warn("zookeeper: lost the connection; the last list of nodes stays in force")
	}
	if session != k.session {
		k.log.Info("zookeeper: connected", "server", k.link.conn.Server())
		k.session, k.all, k.until = session, true, time.Now().Add(grace)
	}
	k.up = up
	if up {
		k.since = time.Now()
	}
}

// withoutSession renews zk when the session that zk wants to resume must have expired long ago. It
// returns when to call it again.
func (k *keeper) withoutSession() time.Duration {
	limit := k.m.cfg.SessionTimeout * 3 / 2
	if wait := time.Until(k.since.Add(limit)); wait > 0 {
		return wait
	}
	k.log.Warn("zookeeper: no session; connecting again", "after", limit, "error", k.link.lastFault())
	if err := k.link.renew(); err != nil {
		k.log.Error(err.Error())
	}
	k.since, k.authed = time.Now(), false
	clear(k.armed)
	return limit
}

// turn does all pending work.
func (k *keeper) turn(ctx context.Context) error {
	order := k.m.currentOrder()
	if err := k.prepare(ctx); err != nil {
		k.m.report(func(s *status) {
			s.tried(order.serial, err)
			s.listError, s.trouble = err, err
		})
		return err
	}
	registering := k.register(ctx, order)
	k.m.report(func(s *status) { s.tried(order.serial, registering) })
	if isLost(registering) {
		return registering
	}
	listing := k.list(ctx)
	if listing == nil {
		k.publish()
	}
	trouble := cmp.Or(registering, listing)
	k.m.report(func(s *status) {
		s.listError, s.trouble = listing, trouble
		s.listed = s.listed || listing == nil
	})
	return trouble
}

// complain logs a failure once.
func (k *keeper) complain(err error) {
	if err == nil {
		k.last = ""
		return
	}
	if text := err.Error(); text != k.last && !isLost(err) {
		k.last = text
		k.log.Warn(text)
	}
}

// prepare does what must come first: once, and the credentials once for each zk.Conn.
func (k *keeper) prepare(ctx context.Context) error {
	if auth := k.m.cfg.Auth; auth != "" && !k.authed {
		if err := k.do(ctx, func(c *zk.Conn) error { return c.AddAuth("digest", []byte(auth)) }); err != nil {
			return explain(err, "give credentials to", "ZooKeeper")
		}
		k.authed = true
	}
	if k.prepared {
		return nil
	}
	if !k.m.cfg.ReadOnly {
		if err := k.makeDir(ctx); err != nil {
			return err
		}
		if err := k.mayRegister(ctx); err != nil {
			return err
		}
	}
	k.prepared = true
	return nil
}

// makeDir creates dir and its parents where they are missing.
func (k *keeper) makeDir(ctx context.Context) error {
	var path strings.Builder
	for element := range strings.SplitSeq(k.dir[1:], "/") {
		path.WriteString("/" + element)
		there, err := call(ctx, k.link, func(c *zk.Conn) (bool, error) {
			there, _, err := c.Exists(path.String())
			return there, err
		})
		if err == nil && !there {
			err = k.create(ctx, path.String(), nil, zk.FlagPersistent)
		}
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return explain(err, "create", path.String())
		}
	}
	return nil
}

// mayRegister checks the permission to register. It requests a change that needs this permission
// but cannot succeed, because its second half is impossible.
func (k *keeper) mayRegister(ctx context.Context) error {
	err := k.do(ctx, func(c *zk.Conn) error {
		_, err := c.Multi(
			&zk.CreateRequest{Path: k.dir + "/probe", Acl: k.acl, Flags: zk.FlagEphemeral},
			&zk.CheckVersionRequest{Path: k.dir, Version: math.MaxInt32})
		return err
	})
	if err == nil || errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNodeExists) {
		return nil
	}
	return explain(err, "register in", k.dir)
}

// register ensures that the wanted znode exists, and no other of ours.
func (k *keeper) register(ctx context.Context, want order) error {
	if want.name != "" {
		if _, stale := k.stale[k.path(want.name)]; stale || k.all || k.m.obeyed() != want.serial {
			k.mine[want.name] = struct{}{}
			if err := k.put(ctx, k.path(want.name), want.data); err != nil {
				return err
			}
		}
	}
	for name := range k.mine {
		if name == want.name {
			continue
		}
		if err := k.remove(ctx, k.path(name)); err != nil {
			return explain(err, "delete", k.path(name))
		}
		delete(k.mine, name)
		delete(k.shown, name)
	}
	return nil
}

// put ensures that path exists with data as an ephemeral znode of this session.
func (k *keeper) put(ctx context.Context, path string, data []byte) error {
	for range 5 { // what was read may be out of date by the time of the write
		there, stat, err := k.get(ctx, path)
		switch {
		case errors.Is(err, zk.ErrNoNode):
			err = k.create(ctx, path, data, zk.FlagEphemeral)
			if errors.Is(err, zk.ErrNoNode) { // its parent does not exist either
				if err := k.makeDir(ctx); err != nil {
					return err
				}
				continue
			}
			if errors.Is(err, zk.ErrNodeExists) {
				continue
			}
		case err != nil:
		// it belongs to an old session of ours that has not expired yet
		case stat.EphemeralOwner != k.link.conn.SessionID():
			if err = k.remove(ctx, path); err == nil {
				continue
			}
		case !bytes.Equal(there, data):
			err = k.do(ctx, func(c *zk.Conn) error { _, err := c.Set(path, data, -1); return err })
			if errors.Is(err, zk.ErrNoNode) {
				continue
			}
		}
		if err != nil {
			return explain(err, "register", path)
		}
		return nil
	}
	return fmt.Errorf("zookeeper: cannot register %s: another program keeps changing it", path)
}

// list reads what is stale.
func (k *keeper) list(ctx context.Context) error {
	names, err := k.children(ctx)
	if err != nil {
		if errors.Is(err, zk.ErrNoNode) {
			k.prepared = false // so that dir is created again
		}
		return explain(err, "read", k.dir)
	}
	names = k.choose(names)
	entries := make(map[string]entry, len(names))
	for _, name := range names {
		path := k.path(name)
		known, ok := k.entries[name]
		// a znode without a watch is read again with the next full list
		if _, stale := k.stale[path]; ok && !stale && !k.all {
			entries[name] = known
			continue
		}
		e, err := k.read(ctx, path, known)
		if errors.Is(err, zk.ErrNoNode) {
			continue // gone since
		}
		if err != nil {
			return explain(err, "read", path)
		}
		entries[name] = e
	}
	k.tellSkipped(entries)
	k.entries, k.all = entries, false
	clear(k.stale)
	for path := range k.armed {
		if _, ok := entries[strings.TrimPrefix(path, k.dir+"/")]; !ok && path != k.dir {
			delete(k.armed, path)
		}
	}
	k.link.watchOnly(k.armed)
	return nil
}

// children lists dir and sets a watch. If it finds a change that the watch should have reported
// first, the watch is dead.
func (k *keeper) children(ctx context.Context) ([]string, error) {
	_, armed := k.armed[k.dir]
	names, stat, err := k.readDir(ctx, !armed)
	if err == nil && armed && stat.Pzxid != k.pzxid {
		names, stat, err = k.readDir(ctx, true)
	}
	if err != nil {
		delete(k.armed, k.dir)
		return nil, err
	}
	k.armed[k.dir] = struct{}{}
	k.pzxid = stat.Pzxid
	return names, nil
}

func (k *keeper) readDir(ctx context.Context, watch bool) ([]string, *zk.Stat, error) {
	type listing struct {
		names []string
		stat  *zk.Stat
	}
	if watch {
		k.link.watch(k.dir)
	}
	l, err := call(ctx, k.link, func(c *zk.Conn) (l listing, err error) {
		if watch {
			l.names, l.stat, _, err = c.ChildrenW(k.dir)
		} else {
			l.names, l.stat, err = c.Children(k.dir)
		}
		return l, err
	})
	return l.names, l.stat, err
}

// read reads a znode and sets a watch, unless the znode has too much data: then the next list looks
// at it again. Reading more than the connection accepts would end the connection, again and again.
func (k *keeper) read(ctx context.Context, path string, known entry) (e entry, err error) {
	stat, err := call(ctx, k.link, func(c *zk.Conn) (*zk.Stat, error) {
		there, stat, err := c.Exists(path)
		if err == nil && !there {
			err = zk.ErrNoNode
		}
		return stat, err
	})
	if err != nil {
		return e, err
	}
	if stat.DataLength > maxRecord {
		e.wrong = fmt.Sprintf("it has %d bytes, at most %d are allowed", stat.DataLength, maxRecord)
		return e, nil
	}
	// Read it again even if its date is unchanged: a server that has lost its data starts to count
	// from the beginning.
	data, stat, err := k.watched(ctx, path, known.dated)
	if err != nil {
		return e, err
	}
	e = entry{created: stat.Czxid, dated: stat.Mzxid}
	record, err := decode(data)
	if err != nil {
		e.wrong = err.Error()
		return e, nil
	}
	e.record = record
	return e, nil
}

// watched reads a znode whose last known date is dated, and sets a watch, as children does.
func (k *keeper) watched(ctx context.Context, path string, dated int64) ([]byte, *zk.Stat, error) {
	if _, armed := k.armed[path]; armed {
		data, stat, err := k.get(ctx, path)
		if err == nil && stat.Mzxid == dated {
			return data, stat, nil
		}
		delete(k.armed, path)
	}
	k.link.watch(path)
	r, err := call(ctx, k.link, func(c *zk.Conn) (r reading, err error) {
		r.data, r.stat, _, err = c.GetW(path)
		return r, err
	})
	if err == nil {
		k.armed[path] = struct{}{}
	}
	return r.data, r.stat, err
}

type reading struct {
	data []byte
	stat *zk.Stat
}

func (k *keeper) get(ctx context.Context, path string) ([]byte, *zk.Stat, error) {
	r, err := call(ctx, k.link, func(c *zk.Conn) (r reading, err error) {
		r.data, r.stat, err = c.Get(path)
		return r, err
	})
	return r.data, r.stat, err
}

func (k *keeper) create(ctx context.Context, path string, data []byte, flags int32) error {
	return k.do(ctx, func(c *zk.Conn) error { _, err := c.Create(path, data, flags, k.acl); return err })
}

// remove deletes a znode, which may already be gone.
func (k *keeper) remove(ctx context.Context, path string) error {
	err := k.do(ctx, func(c *zk.Conn) error { return c.Delete(path, -1) })
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}

func (k *keeper) do(ctx context.Context, request func(*zk.Conn) error) error {
	_, err := call(ctx, k.link, func(c *zk.Conn) (struct{}, error) { return struct{}{}, request(c) })
	return err
}

func (k *keeper) path(name string) string { return k.dir + "/" + name }

// publish shows readers the nodes that are registered and, for a while after a new connection,
// those that were shown before and have not been replaced.
func (k *keeper) publish() {
	shown := maps.Clone(k.entries)
	k.holding = false
	if time.Now().Before(k.until) {
		registered := make(map[string]bool, len(shown))
		for _, e := range shown {
			registered[e.record.ID] = true
		}
		for name, e := range k.shown {
			if _, mine := k.mine[name]; !mine && !registered[e.record.ID] {
				shown[name], k.holding = e, true
			}
		}
	}
	maps.DeleteFunc(shown, func(_ string, e entry) bool { return e.record.ID == "" })
	k.shown = shown
	sorted := slices.SortedFunc(maps.Values(shown), func(a, b entry) int {
		return cmp.Or(strings.Compare(a.record.ID, b.record.ID), cmp.Compare(a.created, b.created))
	})
	records := make([]discovery.Record, len(sorted))
	for i, e := range sorted {
		records[i] = e.record
	}
	k.m.view.publish(records)
}

// explain returns one line that says what failed and what to do about it.
func explain(err error, verb, what string) error {
	advice := ""
	switch {
	case isLost(err): // nothing to explain
	case errors.Is(err, zk.ErrNoAuth):
		return fmt.Errorf("zookeeper: no permission to %s %s: give credentials that have it, or grant it: %w", verb, what, err)
	case errors.Is(err, zk.ErrNoNode):
		advice = ": it does not exist: start a node first, or correct the path"
	}
	return fmt.Errorf("zookeeper: cannot %s %s%s: %w", verb, what, advice, err)
}
