package directory

import (
	"errors"
	"time"

	"distmsg/internal/histogram"
	"distmsg/routing"
)

// operation is a call to the registry.
type operation int

const (
	callBind operation = iota
	callUnbind
	callLookup
	callAttach
	callDetach
	callPresence
	callEndSession
	callProbe
	operations // how many there are
)

var operationNames = [operations]string{
	callBind: "bind", callUnbind: "unbind", callLookup: "lookup", callAttach: "attach", callDetach: "detach",
	callPresence: "presence", callEndSession: "end_session", callProbe: "probe",
}

// callTimes says how long the calls took, by operation. The second of a pair is for calls that
// failed.
type callTimes [operations][2]histogram.Shared

// add counts a call that has just ended.
func (c *callTimes) add(op operation, began time.Time, err error) {
	failed := 0
	if errors.Is(err, routing.ErrUnavailable) {
		failed = 1
	}
	c[op][failed].Add(time.Since(began))
}

// Call says how long calls to the registry took, of one operation and with one kind of result; see
// engine.RegistryCall.
type Call struct {
	Operation string
	Failed    bool
	Time      histogram.Histogram
}

// Calls returns the calls of all operations, whether there were any or not. Any goroutine but an
// event loop may call it.
func (d *Directory) Calls() (all []Call) {
	for op := range operations {
		for failed := range 2 {
			all = append(all, Call{operationNames[op], failed == 1, d.registry.calls[op][failed].Read()})
		}
	}
	return all
}
