package agents

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// A stream is the events of a run, on their way to the coordinator. Any goroutine may call its
// methods. If the coordinator does not read, or has gone, the stream fails once and ends the run.
type stream struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	control *http.ResponseController
	failed  error // guarded by mu
	cut     context.CancelCauseFunc
}

func newStream(w http.ResponseWriter, cut context.CancelCauseFunc) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &stream{w: w, control: http.NewResponseController(w), cut: cut}
}

// send writes an event.
func (s *stream) send(e *event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return
	}
	err := s.control.SetWriteDeadline(time.Now().Add(answerWithin))
	if err == nil {
		err = json.NewEncoder(s.w).Encode(e)
	}
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil {
		s.failed = err
		s.cut(err)
	}
}

// fail ends the run.
func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	s.cut(err)
}

// beat shows the coordinator, until ctx ends, that the agent lives. ended is closed after that.
func (s *stream) beat(ctx context.Context) (ended chan struct{}) {
	ended = make(chan struct{})
	s.send(&event{Beat: true}) // the coordinator waits for the answer to its request
	go func() {
		defer close(ended)
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.send(&event{Beat: true})
			}
		}
	}()
	return ended
}
