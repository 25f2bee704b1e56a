package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"distmsg/codec"
)

// Login is what a client shows when it connects. A hook may keep all of it.
type Login struct {
	Credentials []byte // from the client's hello
	Remote      net.Addr
	TLS         *tls.ConnectionState // nil without TLS
}

// Identity says who a client is, and what it may do. The zero value is a client without a name that
// may do everything.
type Identity struct {
	// Name is for logs, hooks and limits. A client needs the same name to resume its session.
	Name string
	// IDs are patterns of the IDs that the client may bind, and so send from. A pattern is an ID,
	// or a prefix followed by *. Nil means every ID; an empty list that is not nil means none.
	IDs []string
	// NoLookup and NoWatch forbid the client to look IDs up, and to watch them.
	NoLookup, NoWatch bool
	// Limits bound what the client may use. Zero fields mean the node's defaults.
	Limits Limits
	// Expires is when these rights end. Zero means never.
	Expires time.Time
}

// ErrRetryLogin is the error of Hooks.Authenticate when it cannot check the credentials now, for
// example because the service that it asks does not answer. The error may be wrapped. The node asks
// the client to try again later, and does not refuse its credentials.
var ErrRetryLogin = errors.New("engine: cannot check the credentials now: try again later")

// authenticate asks the hook who the client is, and lets the connection into its session, or
// refuses it.
func (j *join) authenticate(l Login) {
	e := j.loop.eng
	ctx, cancel := context.WithTimeout(e.serving, e.cfg.IdleTimeout)
	defer cancel()
	var identity Identity
	var err error
	if !e.hooks.apart("Authenticate", func() { identity, err = e.cfg.Hooks.Authenticate(ctx, l) }) {
		j.refuse(codec.FaultInternal, "the node could not check the credentials")
		return
	}
	switch {
	case e.serving.Err() != nil: // whatever the hook says now, it is not about the credentials
		j.refuse(codec.FaultGoingAway, "the node is shutting down")
	case errors.Is(err, ErrRetryLogin):
		e.clients.warn("cannot check credentials now: the client has to come again", "remote", l.Remote, "error", err)
		j.refuse(codec.FaultGoingAway, "the node cannot check credentials at the moment: try again later")
	case err != nil:
		e.clients.warn("refused a login", "remote", l.Remote, "reason", err)
		j.refuse(codec.FaultUnauthenticated, err.Error())
	default:
		admitted, err := newLogin(identity)
		if err != nil {
			e.cfg.Logger.Error("Hooks.Authenticate returned an identity that is not valid", "error", err)
			j.refuse(codec.FaultInternal, "the node could not check the credentials")
			return
		}
		j.enqueue(admitted)
	}
}
