package redis

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// errForeign is the cause of all failures while another cluster has the prefix.
var errForeign = errors.New("another cluster")

// gate knows why a call need not even be tried. Callers make one call after the other, so without
// it each of them would wait for a Redis that does not answer.
type gate struct {
	// since when Redis has not answered, and how; never for a Redis Cluster
	silent  atomic.Pointer[unavailableError]
	foreign atomic.Pointer[unavailableError] // the prefix is another cluster's
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

// noAnswer reports whether err says that Redis has not answered. An error that it replies is an
// answer.
func noAnswer(err error) bool {
	var network net.Error // a context's deadline is one, too
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// silence shuts the gate if err is for lack of an answer. A Redis Cluster has several masters, and
// one that is away is no reason not to ask the others.
func (r *Registry) silence(err error) {
	if r.clustered() || !noAnswer(err) {
		return
	}
	if r.gate.silent.CompareAndSwap(nil, &unavailableError{url: r.config.URL, since: time.Now(), cause: causeOf(err)}) {
		notify(r.losses.wake) // perhaps it was only slow
	}
}

// checked opens or shuts the gate by how a check has ended.
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
