package engine

import (
	"fmt"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/rights"
)

// A client may do what its identity allows (S9). What it may bind is checked in the lanes, for new
// binds and re-asserts alike. Sends need no check of their own, because a session sends only from
// IDs that it holds (S7). So rights cost nothing for each message.

// login is what a connection's login has yielded. It is static. Nil stands for a client that may do
// everything.
type login struct {
	name              string
	may               *rights.Patterns // nil: it may bind every ID
	noLookup, noWatch bool
	limits            Limits
	expires           time.Time // zero: never
}

// newLogin compiles an identity. It returns an error if a pattern or a limit is not valid.
func newLogin(id Identity) (*login, error) {
	may, err := rights.Compile(id.IDs)
	if err != nil {
		return nil, fmt.Errorf("the rights of %q: %w", id.Name, err)
	}
	if wrong := id.Limits.check(); wrong != "" {
		return nil, fmt.Errorf("the limits of %q: %s", id.Name, wrong)
	}
	return &login{
		name: id.Name, may: may, noLookup: id.NoLookup, noWatch: id.NoWatch, limits: id.Limits, expires: id.Expires,
	}, nil
}

// restrictBind limits a request for a bind to the IDs that the client may bind.
func (l *login) restrictBind(r *directory.Request) {
	if l != nil && l.may != nil {
		r.Rights, r.Refusal = l.may, l.refusal()
	}
}

// refusal says why an ID is refused.
func (l *login) refusal() string {
	return fmt.Sprintf("the identity %.100q may bind only these IDs: %s", l.name, l.may)
}

// restrict takes from the session of a connection the IDs that its client had bound before, and may
// not hold any more.
func (l *login) restrict(c *conn) {
	if l != nil && l.may != nil {
		c.loop.eng.dir.Restrict(c.session, c.handle(), l.may, l.refusal())
	}
}

// mayLookup refuses a lookup if the client may not look IDs up.
func (c *conn) mayLookup(r *directory.Request) bool {
	return c.permits(r, c.login == nil || !c.login.noLookup, "may not look IDs up")
}

// mayWatch refuses a watch if the client may not watch IDs.
func (c *conn) mayWatch(r *directory.Request) bool {
	return c.permits(r, c.login == nil || !c.login.noWatch, "may not watch IDs")
}

// permits answers a charged request with denied if it is not allowed.
func (c *conn) permits(r *directory.Request, allowed bool, refusal string) bool {
	if !allowed {
		c.loop.eng.dir.Refuse(r, codec.CodeDenied, fmt.Sprintf("the identity %.100q %s", c.login.name, refusal))
	}
	return allowed
}
