package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A Redis must do more than answer: it must accept writes, keep them, and have the right time. An
// operator can change each of these while the nodes run, so the registry checks them repeatedly.

const (
	// inspectEvery is the number of checks until the settings are read again, unless something
	// requires that earlier.
	inspectEvery = 60
	// maxSkew is how far Redis's clock may differ from this node's before the node reports it.
	maxSkew = time.Minute
)

// unfitError says that a Redis which answers is not reliable, and what to do.
type unfitError string

func (e unfitError) Error() string { return string(e) }

// findings is what the latest checks have found wrong with a Redis that answers.
type findings struct {
	mu sync.Mutex
	// guarded by mu, like all fields below: how many checks may pass until the settings are read
	due    int
	policy string // the eviction policy that a warning was logged about
	unfit  error  // a setting
	skew   error  // the clock
	check  error  // why losses are not detected
}

// inspectSoon makes the next check read the settings: there is a new connection, so the server may
// be another one or may have been restarted.
func (f *findings) inspectSoon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due = 0
}

// inspectNow reports whether a check must read the settings. While something is wrong, every check
// must.
func (f *findings) inspectNow() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.due--
	return f.due < 0 || f.unfit != nil
}

// set records what a check has found, or nil. It reports whether that has changed from nil to an
// error, or back.
func (f *findings) set(finding *error, err error) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed = (*finding == nil) != (err == nil)
	*finding = err
	return changed
}

// err joins all findings.
func (f *findings) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.unfit, f.skew, f.check)
}

// Probe implements [routing.Registry]. It writes to each master.
func (r *Registry) Probe(ctx context.Context) error {
	keys, err := r.probeKeys(ctx)
	if err != nil {
		return r.unavailable(err)
	}
	commands := make([]goredis.Cmder, len(keys))
	for i, key := range keys {
		commands[i] = newCall(probeScript, key)
	}
	if err := r.do(ctx, commands...); err != nil {
		return err
	}
	return r.findings.err()
}

// probeKeys are keys to write to, one at each master that has keys of ours.
func (r *Registry) probeKeys(ctx context.Context) (keys []string, err error) {
	cluster, ok := r.client.(*goredis.ClusterClient)
	if !ok {
		return []string{r.keys.probe(0)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	seen := make(map[string]bool)
	for group := range groups {
		master, err := cluster.MasterForKey(ctx, r.keys.probe(group))
		if err != nil {
			return nil, err
		}
		if addr := master.Options().Addr; !seen[addr] {
			seen[addr] = true
			keys = append(keys, r.keys.probe(group))
		}
	}
	return keys, nil
}

// inspect checks whether a registry can work with this Redis.
func (r *Registry) inspect(ctx context.Context) error {
	// the inspection has several steps and opens the first connections
	ctx, cancel := context.WithTimeout(ctx, 3*r.config.Timeout)
	defer cancel()
	if err := r.readSettings(ctx); err != nil {
		return err
	}
	return r.check(ctx)
}

// readSettings returns an unfitError, or an error that says that the settings could not be read.
func (r *Registry) readSettings(ctx context.Context) error {
	return r.eachMaster(ctx, r.readSettingsOf)
}

func (r *Registry) readSettingsOf(ctx context.Context, master *goredis.Client) error {
	text, err := master.Info(ctx).Result()
	if err != nil {
		return err
	}
	info := parseInfo(text)
	switch limit, policy := info["maxmemory"], info["maxmemory_policy"]; {
	case info["role"] != "master":
		return unfitError(adviceReplica)
	case info["cluster_enabled"] == "1" && !r.clustered():
		return unfitError(adviceCluster)
	case limit != "0" && strings.HasPrefix(policy, "allkeys-"):
		return unfitError("it would drop bindings when its memory is full: set maxmemory-policy from " + policy + " to noeviction")
	case limit != "0" && policy != "noeviction":
		r.warnOfPolicy(policy)
	}
	return nil
}

func (r *Registry) warnOfPolicy(policy string) {
	f := r.findings
	f.mu.Lock()
	known := f.policy == policy
	f.policy = policy
	f.mu.Unlock()
	if !known {
		r.config.Logger.Warn("Redis may drop its records of ended sessions when its memory is full: set maxmemory-policy to noeviction",
			"url", r.config.URL, "policy", policy)
	}
}

// inspectAgain reads the settings if that is due. Whatever it finds wrong, the registry continues
// to look for losses. The error says that the settings could not be read.
func (r *Registry) inspectAgain(ctx context.Context) error {
	if !r.findings.inspectNow() {
		return nil
	}
	err := r.readSettings(ctx)
	var unfit unfitError
	if err != nil && !errors.As(err, &unfit) {
		r.findings.inspectSoon()
		return err
	}
	f := r.findings
	f.mu.Lock()
	f.due = inspectEvery
	f.mu.Unlock()
	if err != nil {
		err = r.atFault(unfit)
	}
	if f.set(&f.unfit, err) {
		if err != nil {
			r.config.Logger.Error("the settings of Redis are unsafe", "error", err)
		} else {
			r.config.Logger.Info("the settings of Redis are safe again", "url", r.config.URL)
		}
	}
	return nil
}

// atFault adds which Redis is wrong. Calls still succeed, so the error is not a
// routing.ErrUnavailable.
func (r *Registry) atFault(err error) error { return fmt.Errorf("%s: %w", r.config.URL, err) }

// measureSkew returns by how much a server's clock is at least ahead of this node's, or behind it
// if negative. asked and answered are the times when INFO was sent and answered.
func measureSkew(info map[string]string, asked, answered time.Time) time.Duration {
	micros, err := strconv.ParseInt(info["server_time_usec"], 10, 64)
	if err != nil {
		return 0 // the server does not report its time
	}
	switch now := time.UnixMicro(micros); {
	case now.Before(asked):
		return now.Sub(asked)
	case now.After(answered):
		return now.Sub(answered)
	}
	return 0
}

// noteSkew records how far the clock of a master is off.
func (r *Registry) noteSkew(skew time.Duration) {
	var err error
	if off := skew.Abs(); off > maxSkew {
		where := "ahead of"
		if skew < 0 {
			where = "behind"
		}
		err = r.atFault(fmt.Errorf("its clock is %v %s this node's, and new bindings may count as older than those they replace: correct the one that is wrong",
			off.Round(time.Second), where))
	}
	if f := r.findings; f.set(&f.skew, err) {
		if err != nil {
			r.config.Logger.Warn("the clocks differ", "error", err)
		} else {
			r.config.Logger.Info("the clocks agree again", "url", r.config.URL)
		}
	}
}
