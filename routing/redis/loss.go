package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

var errRebuilding = errors.New("data may have been lost and is being rebuilt")

// losses tracks whether Redis still has all that was written to it.
type losses struct {
	lost chan struct{} // room for one: a loss that has not been reported yet
	wake chan struct{} // room for one: check now

	mu sync.Mutex
	// guarded by mu, like all fields below: the length of a rebuild window
	window   time.Duration
	view     *view               // what calls use
	identity string              // of the data; empty before the first check
	runs     map[string]struct{} // run IDs of all masters
	rebuilt  time.Time           // when the latest rebuild window closes
	// one window after this node noticed the latest loss; see recovering
	caughtUp   time.Time
	suspicions int // how often there was a reason to check
	settled    int // how many of these reasons the latest check has resolved
}

// view is what calls use: where IDs are stored, and the markers that prove that the data are still
// there. It never changes, but is replaced as a whole. If a call has used one view, only that
// view's markers say anything about the answer.
type view struct {
	key     hashKey
	markers [groups]string // the expected markers; empty before the first check
}

func newLosses(window time.Duration) *losses {
	return &losses{lost: make(chan struct{}, 1), wake: make(chan struct{}, 1), window: window, view: new(view)}
}

// snapshot returns the current view. It also reports whether a miss counts now.
func (l *losses) snapshot() (v *view, certain bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view, l.certainLocked()
}

// recovering reports whether data were lost a short time ago from the point of view of this node.
// The node may have noticed the loss only after the rebuild window. Then it has as much time from
// there.
func (l *losses) recovering() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.certainLocked() || time.Now().Before(l.caughtUp)
}

// notify puts a token into a channel with room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// suspectLocked requests a check. Until the check is done, no miss counts.
func (l *losses) suspectLocked() {
	l.suspicions++
	notify(l.wake)
}

func (l *losses) suspect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspectLocked()
}

func (l *losses) certainLocked() bool {
	return l.suspicions == l.settled && !time.Now().Before(l.rebuilt)
}

// Lost implements [routing.Registry].
func (r *Registry) Lost() <-chan struct{} { return r.losses.lost }

// Rebuilding implements [routing.Registry].
func (r *Registry) Rebuilding() bool {
	l := r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.certainLocked()
}

// lastLoss returns when the rebuild window of the latest loss closes or has closed. The time
// differs for each loss.
func (l *losses) lastLoss() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rebuilt
}

// certain reports whether a miss in a group counts for a call that used v, given the marker that
// was read after it.
func (r *Registry) certain(v *view, group int, marker *goredis.StringCmd) bool {
	l := r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	if marker.Val() != l.view.markers[group] {
		l.suspectLocked()
	}
	return marker.Val() == v.markers[group] && l.certainLocked()
}

// onConnect checks which server is at the other end of a new connection, before the connection is
// used. A server that was not a master at the latest check may have been restarted, or may be a
// replica that has taken over.
func (r *Registry) onConnect(ctx context.Context, conn *goredis.Conn) error {
	text, err := conn.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	info := parseInfo(text)
	// go-redis calls this for connections to sentinels, too
	if info["redis_mode"] == "sentinel" {
		return nil
	}
	r.findings.inspectSoon()
	l := r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.runs[info["run_id"]]; !known {
		l.suspectLocked()
	}
	return nil
}

// watch checks periodically, and when there is a reason to. After a failed check the reason
// remains, so the next check waits for its time: otherwise each lookup would cause one more check.
func (r *Registry) watch(ctx context.Context) {
	tick := time.NewTicker(r.config.CheckInterval)
	defer tick.Stop()
	var before error
	var began time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.losses.wake:
			if before != nil && time.Since(began) < r.config.CheckInterval {
				continue
			}
		}
		began = time.Now()
		err := r.check(ctx)
		if ctx.Err() != nil {
			return
		}
		r.checked(err)
		r.noteCheck(err)
		switch {
		case errors.Is(err, errForeign) && !errors.Is(before, errForeign):
			r.config.Logger.Error("this registry must not be used", "error", r.unavailable(err))
		case err != nil && before == nil:
			r.config.Logger.Warn("calls to Redis fail", "error", r.unavailable(err))
		case err == nil && before != nil:
			r.config.Logger.Info("Redis answers again", "url", r.config.URL)
		}
		before = err
	}
}

// noteCheck records that losses cannot be detected at the moment. Calls notice themselves whether
// Redis answers at all.
func (r *Registry) noteCheck(err error) {
	if err != nil {
		err = r.atFault(fmt.Errorf("it cannot be watched for losses of data: %w", causeOf(err)))
	}
	r.findings.set(&r.findings.check, err)
}

// check compares run IDs and markers with the previous ones. After a loss, it sets new markers,
// which all nodes see, and opens the rebuild window. The first check accepts what it finds. Only
// one check runs at a time, whether or not calls succeed.
func (r *Registry) check(ctx context.Context) error {
	l := r.losses
	l.mu.Lock()
	known, first, suspicions := l.view, l.runs == nil, l.suspicions
	l.mu.Unlock()
	runs, err := r.runIDs(ctx)
	if err != nil {
		return err
	}
	if err := r.inspectAgain(ctx); err != nil {
		return err
	}
	if err := r.checkFingerprint(ctx); err != nil { // before anything is written
		return err
	}
	has, err := r.readNames(ctx)
	if err != nil {
		return err
	}
	if err := r.checkIdentity(ctx, has.identity); err != nil {
		return err
	}
	key, err := r.checkHash(ctx, known.key, has, first)
	if err != nil {
		return err
	}
	var changed []renewal
	for group, text := range has.markers {
		m := parseMarker(text)
		_, alive := runs[m.run]
		good := alive && m.key == key.text
		if text != known.markers[group] || !good {
			changed = append(changed, renewal{group: group, found: text, keep: good})
		}
	}
	age, err := r.renew(ctx, key, changed)
	if err != nil {
		return err
	}
	if l.settle(key, runs, suspicions, changed, age) {
		r.config.Logger.Warn("Redis has lost data, or may have; the nodes assert all bindings again",
			"url", r.config.URL, "groups", len(changed), "of", groups)
		notify(l.lost)
	}
	return nil
}

// settle adopts the result of a check. age is that of the youngest marker. It reports whether there
// was a loss.
func (l *losses) settle(key hashKey, runs map[string]struct{}, suspicions int, changed []renewal, age time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.runs == nil
	l.runs, l.settled = runs, suspicions
	if len(changed) == 0 {
		return false
	}
	next := &view{key: key, markers: l.view.markers}
	for _, c := range changed {
		next.markers[c.group] = c.now
	}
	l.view = next
	if !first {
		l.caughtUp = time.Now().Add(l.window)
	}
	if rebuilt := time.Now().Add(l.window - age); rebuilt.After(l.rebuilt) {
		l.rebuilt = rebuilt
	}
	return !first
}

// names is what Redis stores besides bindings and sessions. A missing key is empty.
type names struct {
	identity, hash string
	markers        [groups]string
}

// readNames reads them in one round trip.
func (r *Registry) readNames(ctx context.Context) (has names, err error) {
	commands := make([]goredis.Cmder, groups, groups+2)
	for group := range commands {
		commands[group] = r.readMarker(ctx, group)
	}
	identity := goredis.NewStringCmd(ctx, "get", r.keys.identity())
	hash := goredis.NewStringCmd(ctx, "get", r.keys.hash())
	if err := r.ask(ctx, append(commands, identity, hash)...); err != nil {
		return has, err
	}
	for group := range commands {
		has.markers[group] = commands[group].(*goredis.StringCmd).Val()
	}
	has.identity, has.hash = identity.Val(), hash.Val()
	return has, nil
}

// checkFingerprint refuses a prefix that another cluster uses. The first node writes the
// fingerprint, and so does the first one after a loss.
func (r *Registry) checkFingerprint(ctx context.Context) error {
	accepted := r.config.fingerprints()
	if len(accepted) == 0 {
		return nil
	}
	key := r.keys.fingerprint()
	found := goredis.NewStringCmd(ctx, "get", key)
	if err := r.ask(ctx, found); err != nil {
		return err
	}
	text := found.Val()
	if text == "" {
		var err error
		if text, err = r.setIfMissing(ctx, key, accepted[0]); err != nil {
			return err
		}
	}
	if !slices.Contains(accepted, text) {
		return fmt.Errorf("the prefix %q is used by %w, whose nodes have another secret: give this node theirs, or this cluster another name with --cluster",
			r.config.Prefix, errForeign)
	}
	if text != accepted[0] { // the secret is being replaced
		return r.ask(ctx, goredis.NewStatusCmd(ctx, "set", key, accepted[0]))
	}
	return nil
}

// renewal is a marker that differs from the known one.
type renewal struct {
	group int
	found string
	keep  bool   // another node has set it: accept it
	now   string // the marker to use from now on
}

// renew sets new markers, except those to keep, and fills in the current ones. age is that of the
// youngest.
func (r *Registry) renew(ctx context.Context, key hashKey, markers []renewal) (age time.Duration, err error) {
	if len(markers) == 0 {
		return 0, nil
	}
	name := rand.Text()
	commands := make([]goredis.Cmder, len(markers))
	for i, m := range markers {
		replace := m.found
		if m.keep {
			replace = "keep"
		}
		commands[i] = newCall(markerScript, r.keys.marker(m.group), replace, name, layout(key, r.config.Buckets))
	}
	if err := r.ask(ctx, commands...); err != nil {
		return 0, err
	}
	age = math.MaxInt64
	for i := range markers {
		reply, _ := commands[i].(*call).StringSlice()
		if len(reply) != 2 {
			return 0, r.unavailable(fmt.Errorf("marker: reply %q", reply))
		}
		markers[i].now = reply[0]
		m := parseMarker(reply[0])
		switch {
		case m.buckets != r.config.Buckets:
			return 0, fmt.Errorf("the cluster %q has %d buckets, not %d: give this node theirs with --registry-buckets, or this cluster another name with --cluster",
				r.config.Prefix, m.buckets, r.config.Buckets)
		// another node has just set it, and has read the key before this node did
		case m.key != key.text:
			return 0, r.unavailable(errors.New("the key of the buckets has just changed"))
		}
		now, _ := strconv.ParseInt(reply[1], 10, 64)
		age = min(age, time.Duration(max(0, now-m.created))*time.Microsecond)
	}
	return age, nil
}

// marker is the content of a marker key; see marker.lua.
type marker struct {
	created int64 // µs
	run     string
	buckets int
	key     string // the secret of the hash; empty: none
}

// layout is what a marker says about the buckets: their number, or "0", the number and the key.
// Older nodes, which do not know the key, read the 0 and refuse to work with such data.
func layout(key hashKey, buckets int) string {
	if key.text == "" {
		return strconv.Itoa(buckets)
	}
	return fmt.Sprintf("0 %d %s", buckets, key.text)
}

// parseMarker returns the zero marker if text is not a marker.
func parseMarker(text string) marker {
	fields := strings.Fields(text)
	if len(fields) != 4 && len(fields) != 6 {
		return marker{}
	}
	m := marker{run: fields[2]}
	var err error
	if m.created, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
		return marker{}
	}
	buckets := fields[3]
	if len(fields) == 6 {
		buckets, m.key = fields[4], fields[5]
	}
	if m.buckets, err = strconv.Atoi(buckets); err != nil {
		return marker{}
	}
	return m
}

// runIDs asks each master for its run ID, and checks its clock.
func (r *Registry) runIDs(ctx context.Context) (map[string]struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	var mu sync.Mutex
	runs := make(map[string]struct{}) // guarded by mu
	var worst time.Duration           // guarded by mu
	err := r.eachMaster(ctx, func(ctx context.Context, master *goredis.Client) error {
		asked := time.Now()
		text, err := master.Info(ctx, "server").Result()
		if err != nil {
			return err
		}
		info := parseInfo(text)
		skew := measureSkew(info, asked, time.Now())
		mu.Lock()
		defer mu.Unlock()
		runs[info["run_id"]] = struct{}{}
		if skew.Abs() > worst.Abs() {
			worst = skew
		}
		return nil
	})
	if err == nil {
		r.noteSkew(worst)
	}
	return runs, err
}

// eachMaster calls f for each master, for several at a time.
func (r *Registry) eachMaster(ctx context.Context, f func(context.Context, *goredis.Client) error) error {
	if c, ok := r.client.(*goredis.ClusterClient); ok {
		return r.unavailable(c.ForEachMaster(ctx, f))
	}
	return r.unavailable(f(ctx, r.client.(*goredis.Client)))
}

// parseInfo reads the reply of INFO.
func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			info[name] = value
		}
	}
	return info
}
