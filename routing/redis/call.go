package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

// script is a Lua script. All its keys are of one group.
type script struct{ text, sha string }

func newScript(text string) *script {
	return &script{text: text, sha: goredis.NewScript(text).Hash()}
}

var (
	//go:embed lua/bind.lua
	bindLua string
	//go:embed lua/unbind.lua
	unbindLua string
	//go:embed lua/attach.lua
	attachLua string
	//go:embed lua/detach.lua
	detachLua string
	//go:embed lua/end.lua
	endLua string
	//go:embed lua/marker.lua
	markerLua string
	//go:embed lua/lease.lua
	leaseLua string
	//go:embed lua/probe.lua
	probeLua string

	bindScript   = newScript(bindLua)
	unbindScript = newScript(unbindLua)
	attachScript = newScript(attachLua)
	detachScript = newScript(detachLua)
	endScript    = newScript(endLua)
	markerScript = newScript(markerLua)
	leaseScript  = newScript(leaseLua)
	probeScript  = newScript(probeLua)
)

// call is a script call on its way.
type call struct {
	*goredis.Cmd
	script *script
	args   []any // the number of keys, the keys, and the other arguments
}

// newCall calls the script by its hash with one key. args are strings, byte slices or integers.
func newCall(s *script, key string, args ...any) *call {
	return newCallWithKeys(s, []string{key}, args...)
}

func newCallWithKeys(s *script, keys []string, args ...any) *call {
	c := &call{script: s, args: make([]any, 0, 1+len(keys)+len(args))}
	c.args = append(c.args, len(keys))
	for _, key := range keys {
		c.args = append(c.args, key)
	}
	c.args = append(c.args, args...)
	c.Cmd = c.command("evalsha", s.sha)
	return c
}

// spellOut changes the call so that it sends the text of the script, which the server then caches.
func (c *call) spellOut() { c.Cmd = c.command("eval", c.script.text) }

func (c *call) command(name, script string) *goredis.Cmd {
	return goredis.NewCmd(context.Background(), append([]any{name, script}, c.args...)...)
}

// NoRetry prevents go-redis's cluster client from sending a script again when its reply is late,
// because the script may have run. The client still follows a redirect to another master, which
// means that the script has not run.
func (c *call) NoRetry() bool { return true }

// do is ask for callers: it fails at once if Redis is known not to answer.
func (r *Registry) do(ctx context.Context, commands ...goredis.Cmder) error {
	return r.doSome(ctx, 0, commands...)
}

// doSome is do for a batch whose first n commands are for different buckets or sessions. If any of
// the n succeeds, it returns nil, and the caller checks the errors of the commands. So a key that
// cannot be read does not affect the others.
func (r *Registry) doSome(ctx context.Context, n int, commands ...goredis.Cmder) error {
	if err := r.mayAsk(ctx); err != nil {
		return err
	}
	began := time.Now()
	err := r.ask(ctx, commands...)
	// otherwise the caller did not wait long enough
	if ctx.Err() == nil || time.Since(began) > r.config.Timeout/2 {
		r.silence(err)
	}
	return unlessSome(err, n, commands)
}

// inBackground is doSome for the sweep. If Redis answers the sweep too late, other calls still go
// through.
func (r *Registry) inBackground(ctx context.Context, n int, commands ...goredis.Cmder) error {
	if err := r.mayAsk(ctx); err != nil {
		return err
	}
	return unlessSome(r.ask(ctx, commands...), n, commands)
}

// unlessSome returns the error of a batch, or nil if any of the first n commands has succeeded.
func unlessSome(err error, n int, commands []goredis.Cmder) error {
	if err != nil && firstError(commands) != nil && slices.ContainsFunc(commands[:n], succeeded) {
		return nil
	}
	return err
}

// unasked reports whether err says nothing about the commands of a batch, because Redis was not
// asked or has not answered.
func unasked(err error, commands []goredis.Cmder) bool {
	return err != nil && (noAnswer(err) || firstError(commands) == nil)
}

func (r *Registry) mayAsk(ctx context.Context) error {
	if err := r.mayBegin(ctx); err != nil {
		return err
	}
	return r.gate.shut()
}

// mayBegin is the first step of every call: if the context has already ended, the call does
// nothing.
func (r *Registry) mayBegin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &unavailableError{url: r.config.URL, cause: fmt.Errorf("no call was made: %w", err)}
	}
	return nil
}

// ask runs commands in one pipeline. It repeats those that a server refused because it does not
// know the script. It returns the first error, with advice. A missing key is not an error.
func (r *Registry) ask(ctx context.Context, commands ...goredis.Cmder) error {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	err := r.exec(ctx, commands)
	var refused []goredis.Cmder
	for _, c := range commands {
		if c, ok := c.(*call); ok && goredis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
			c.spellOut()
			refused = append(refused, c)
		}
	}
	if len(refused) > 0 {
		err = r.exec(ctx, refused)
	}
	if first := firstError(commands); first != nil {
		err = first
	}
	return r.unavailable(err)
}

// exec returns the error of the pipeline itself. The commands have their own errors.
func (r *Registry) exec(ctx context.Context, commands []goredis.Cmder) error {
	pipe := r.client.Pipeline()
	if err := pipe.BatchProcess(ctx, commands...); err != nil {
		return err
	}
	if _, err := pipe.Exec(ctx); firstError(commands) == nil && !errors.Is(err, goredis.Nil) {
		return err
	}
	return nil
}

func firstError(commands []goredis.Cmder) error {
	for _, c := range commands {
		if !succeeded(c) {
			return c.Err()
		}
	}
	return nil
}

// succeeded reports whether a command has a reply that is no error.
func succeeded(c goredis.Cmder) bool { return c.Err() == nil || errors.Is(c.Err(), goredis.Nil) }

// unavailableError says which Redis is unavailable, and what to do. It is a routing.ErrUnavailable.
type unavailableError struct {
	url   string
	since time.Time // zero: this call was tried
	cause error
}

func (e *unavailableError) Error() string {
	cause := strings.ReplaceAll(e.cause.Error(), "\n", "; ") // of several sentinels
	if e.since.IsZero() {
		return e.url + ": " + cause
	}
	return e.url + ": since " + e.since.Format(time.TimeOnly) + " " + cause
}

func (e *unavailableError) Unwrap() []error { return []error{routing.ErrUnavailable, e.cause} }

// causeOf returns the cause without the URL.
func causeOf(err error) error {
	if u := (*unavailableError)(nil); errors.As(err, &u) {
		return u.cause
	}
	return explain(err)
}

func (r *Registry) unavailable(err error) error {
	if err == nil || errors.Is(err, routing.ErrUnavailable) {
		return err
	}
	return &unavailableError{url: r.config.URL, cause: explain(err)}
}

const (
	advicePermission = "the user lacks a permission: docs/registry.md lists those it needs"
	adviceReplica    = "it is a read-only replica: name its master, or the sentinels"
	adviceCluster    = "it belongs to a Redis Cluster: use redis-cluster:// in the URL"
	adviceConnection = "it cannot be reached: is it running, and is the URL right?"
	adviceClosed     = "it closed the connection: if it requires TLS, use rediss:// in the URL"
	adviceTimeout    = "it did not answer in time: is it stopped, overloaded, or without TLS although the URL says rediss://?"
)

// advice says what to do about errors of Redis, by their prefix.
var advice = []struct{ prefix, advice string }{
	{"WRONGPASS", "wrong user name or password: check the password file"},
	{"NOAUTH", "it requires a password: give one in a file or the environment"},
	{"NOPERM", advicePermission},
	{"ERR The user executing the script", advicePermission},
	{"READONLY", adviceReplica},
	{"OOM", "it has reached its maxmemory and accepts no writes: raise maxmemory"},
	{"NOREPLICAS", "it accepts no writes because too few replicas are connected: check them, or lower min-replicas-to-write"},
	{"MISCONF", "it accepts no writes because it cannot save to disk: see its log"},
	{"MOVED", adviceCluster},
	{"ERR This instance has cluster support disabled", "it is no Redis Cluster: use redis:// in the URL"},
}

// explain puts the advice before the error.
func explain(err error) error {
	for _, a := range advice {
		if strings.HasPrefix(err.Error(), a.prefix) {
			return fmt.Errorf("%s (%w)", a.advice, err)
		}
	}
	var network net.Error
	var dial *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return fmt.Errorf("%s (%w)", adviceTimeout, err)
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("%s (%w)", adviceConnection, err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s (%w)", adviceClosed, err)
	}
	return err
}
