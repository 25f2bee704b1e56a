package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	// an idle stream sends a comment, to check whether the page is still there
	keepAlive = 15 * time.Second
	// the stream of a page that reads nothing for this time is closed, and the page reconnects when
	// it can
	writeLimit = 10 * time.Second
)

// events streams the events of an ID to a page, until the ID is logged out, the page has gone, or
// stop ends. The data of each event is JSON:
//
//	state    "attached", or "reconnecting" while no relay can be reached; at the beginning, and when it changes
//	message  from whom, and the text
//	missed   how many messages this page was too slow for; another page of the same ID was given them
//	over     why the ID is not logged in here any more
func (g *gateway) events(stop context.Context, w http.ResponseWriter, r *http.Request) {
	p, ok := parameters(w, r, "clientId")
	if !ok {
		return
	}
	in := g.inbox(p.Get("clientId"))
	if in == nil {
		refuse(w, http.StatusNotFound, "%.80q is not logged in here", p.Get("clientId"))
		return
	}
	s := openStream(w)
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	// where a page resumes that has reconnected
	next, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	for state := ""; s.err == nil; {
		messages, missed, closed, news := in.from(next)
		if now := g.state(); now != state {
			state = now
			s.send("state", next, state)
		}
		if missed > 0 {
			s.send("missed", next, missed)
		}
		for _, m := range messages {
			next = m.number + 1
			if s.send("message", next, m); s.err == nil {
				in.gave(next)
			}
		}
		if closed != "" {
			s.send("over", next, closed)
			return
		}
		select {
		case <-news:
		case <-alive.C:
			s.write(":\n\n")
		case <-r.Context().Done():
			return
		case <-stop.Done():
			return
		}
	}
}

// state returns whether the relay can be reached.
func (g *gateway) state() string {
	if g.session.State().Attached {
		return "attached"
	}
	return "reconnecting"
}

// stream writes server-sent events to a page.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error // the first error: the page has gone, or does not read
}

func openStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	s := &stream{w: w, control: http.NewResponseController(w)}
	// the request has been read, and its answer may take as long as the page is open
	s.err = s.control.SetReadDeadline(time.Time{})
	s.write("retry: 1000\n\n")
	return s
}

// send writes an event. next is the value that the page sends in Last-Event-ID when it reconnects.
func (s *stream) send(event string, next uint64, v any) {
	data, err := json.Marshal(v) // one line: line breaks are escaped
	if err != nil {
		s.err = err
		return
	}
	s.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", next, event, data))
}

func (s *stream) write(text string) {
	if s.err == nil {
		s.err = s.control.SetWriteDeadline(time.Now().Add(writeLimit))
	}
	if s.err == nil {
		_, s.err = s.w.Write([]byte(text))
	}
	if s.err == nil {
		s.err = s.control.Flush()
	}
}
