package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"distmsg/engine"
)

const (
	// A stream that has nothing to say writes a comment this often, so that both sides notice when
	// the other is gone.
	aliveEvery = 5 * time.Second
	// How long one write of a stream may take.
	streamPatience = 10 * time.Second
)

// stream is an answer that does not end by itself, as server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// begin begins the answer.
func begin(w http.ResponseWriter) (*stream, error) {
	s := &stream{w, http.NewResponseController(w)}
	// Reading goes on only to notice the end of the connection.
	if err := s.control.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	return s, s.write(": this goes on until you close it\n\n")
}

func (s *stream) write(text string) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(streamPatience)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.control.Flush()
}

// send writes an event.
func (s *stream) send(kind string, event any) error {
	text, err := json.Marshal(event)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", kind, text))
}

// openStream begins a stream, if the request is right and there is a place for it. read reads the
// parameters. It returns nil if there is no stream. Else the caller calls leave at its end.
func (a *API) openStream(w http.ResponseWriter, r *http.Request, read func(p *params)) (s *stream, leave func()) {
	_, _, err := readQuestion(r, func(p *params) asking { read(p); return nil })
	if err == nil {
		err = a.streams.enter()
	}
	if err != nil {
		writeError(w, r, err)
		return nil, nil
	}
	if s, err = begin(w); err != nil { // the client is gone
		a.streams.leave()
		return nil, nil
	}
	return s, a.streams.leave
}

// watch answers with the events of some IDs, until the client closes the connection.
func (a *API) watch(w http.ResponseWriter, r *http.Request) {
	var ids []string
	s, leave := a.openStream(w, r, func(p *params) { ids = p.ids() })
	if s == nil {
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	events, ended := make(chan engine.WatchEvent), make(chan error, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		ended <- a.operator.Watch(ctx, ids, func(e engine.WatchEvent) {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		})
	})
	defer watching.Wait()
	defer cancel()
	if err := forward(s, "watch", events, ended); err != nil {
		why := explain(failed(http.StatusServiceUnavailable, err))
		_ = s.send("problem", Problem{Error: why.wrong, Hint: why.hint})
	}
}

// live answers with views of the cluster, until the client closes the connection.
func (a *API) live(w http.ResponseWriter, r *http.Request) {
	s, leave := a.openStream(w, r, func(*params) {})
	if s == nil {
		return
	}
	defer leave()
	views, unwatch := a.feed.Watch()
	defer unwatch()
	ended := make(chan error, 1)
	defer context.AfterFunc(r.Context(), func() { ended <- nil })()
	_ = forward(s, "view", views, ended)
}

// forward writes events until the watching has ended, or the client is gone.
func forward[T any](s *stream, kind string, events <-chan T, ended <-chan error) error {
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		var err error
		select {
		case e := <-events:
			err = s.send(kind, e)
		case <-alive.C:
			err = s.write(": alive\n\n")
		case err = <-ended:
			return err
		}
		if err != nil {
			return nil // the client is gone
		}
	}
}
