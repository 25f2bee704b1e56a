package redis

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// errForeign is the cause of all failures while another cluster uses the prefix.
var errForeign = errors.New("another cluster")

// gate knows why a call would fail, so that it need not be tried. Callers make one call after the
// other, so without the gate each call would wait for a Redis that does not answer.
type gate struct {
	// since when Redis has not answered, and the error; never set for a Redis Cluster
	silent  atomic.Pointer[unavailableError]
	foreign atomic.Pointer[unavailableError] // set if the prefix belongs to another cluster
}

// shut returns the error to fail with, or nil.
func (g *gate) shut() error {
	for _, reason := range []*unavailableError{g.foreign.Load(), g.silent.Load()} {
		if reason != nil {
			return reason
		}
	}
	return nil
}

// noAnswer reports whether err means that Redis has not answered. An error reply is an answer.
func noAnswer(err error) bool {
	var network net.Error // a context's deadline is a net.Error, too
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// silence shuts the gate if err means that there was no answer. It does not for a Redis Cluster,
// which has several masters: if one is away, the others may answer.
func (r *Registry) silence(err error) {
	if r.clustered() || !noAnswer(err) {
		return
	}
	if r.gate.silent.CompareAndSwap(nil, &unavailableError{url: r.config.URL, since: time.Now(), cause: causeOf(err)}) {
		notify(r.losses.wake) // perhaps Redis was only slow
	}
}

// checked opens or shuts the gate according to the result of a check.
func (r *Registry) checked(err error) {
	switch {
	case noAnswer(err):
		r.silence(err)
		return
	case errors.Is(err, errForeign):
		r.gate.foreign.Store(&unavailableError{url: r.config.URL, cause: err})
	case err == nil:
		r.gate.foreign.Store(nil)
	}
	r.gate.silent.Store(nil)
}
