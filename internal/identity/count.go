package identity

import (
	"errors"
	"sync/atomic"

	"distmsg/engine"
)

// Way is how a client shows who it is.
type Way int

const (
	ByCertificate Way = iota
	ByToken
	ByJWT
	ByCallout
	Anonymously // without credentials
	ByUnknown   // with credentials of a kind that the node does not know
	ways        // how many there are
)

// String returns the word for the way, as metrics have it.
func (w Way) String() string {
	return [ways]string{"certificate", "token", "jwt", "callout", "anonymous", "unknown"}[w]
}

// Result is how a login ended.
type Result int

const (
	Accepted Result = iota
	Refused
	Retry   // the node could not decide: the client comes again
	results // how many there are
)

// String returns the word for the result, as metrics have it.
func (r Result) String() string { return [results]string{"accepted", "refused", "retry"}[r] }

// resultOf returns how a login ended that an authenticator decided with err.
func resultOf(err error) Result {
	switch {
	case err == nil:
		return Accepted
	case errors.Is(err, engine.ErrRetryLogin):
		return Retry
	}
	return Refused
}

// Count says how many logins came in one way and ended with one result.
type Count struct {
	Way    Way
	Result Result
	Times  uint64
}

// counts counts logins. Any goroutine may use it.
type counts [ways][results]atomic.Uint64

func (c *counts) add(w Way, r Result) { c[w][r].Add(1) }

// Counts returns how many logins there were, for all ways and results. A nil chain has counted
// none. Any goroutine may call it.
func (c *Chain) Counts() (all []Count) {
	for w := range ways {
		for r := range results {
			n := uint64(0)
			if c != nil {
				n = c.counts[w][r].Load()
			}
			all = append(all, Count{w, r, n})
		}
	}
	return all
}
