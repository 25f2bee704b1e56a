package admin

import (
	"bytes"
	"net/http"
	"time"
)

const (
	// After a request, the server rests restPart times as long as the request took, but at most
	// longestRest. So requests that take up to 25 ms each use a fifth of one core.
	restPart    = 4
	longestRest = 100 * time.Millisecond
)

// pace answers requests one at a time, in the order in which they came, and rests after each. A
// client may send as many requests as it likes, but the event loops need the CPU.
type pace struct{ turn chan struct{} }

func newPace() pace { return pace{make(chan struct{}, 1)} }

// of paces a handler. The server sends the handler's output when its turn is over, so a client that
// does not read delays nobody.
func (p pace) of(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case p.turn <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		kept := answer{ResponseWriter: w, status: http.StatusOK}
		p.call(next, &kept, r)
		w.WriteHeader(kept.status)
		_, _ = w.Write(kept.body.Bytes())
	})
}

func (p pace) call(next http.Handler, w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	defer func() {
		time.AfterFunc(min(restPart*time.Since(began), longestRest), func() { <-p.turn })
	}()
	next.ServeHTTP(w, r)
}

// answer buffers what a handler writes.
type answer struct {
	http.ResponseWriter // for its header
	status              int
	body                bytes.Buffer
}

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
