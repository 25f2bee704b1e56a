package admin

import (
	"bytes"
	"net/http"
	"time"
)

const (
	// After a request, nothing is done for restPart times as long as it took, but for longestRest
	// at most. So requests that take up to 25 ms each have a fifth of one core.
	restPart    = 4
	longestRest = 100 * time.Millisecond
)

// pace answers requests one at a time, in the order in which they came, and rests after each.
// Whoever reaches the port may ask as often as it likes, and the event loops need the CPU.
type pace struct{ turn chan struct{} }

func newPace() pace { return pace{make(chan struct{}, 1)} }

// of paces a handler. What it writes is sent when its turn is over: a client that does not read
// holds up nobody.
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

// answer keeps what a handler writes.
type answer struct {
	http.ResponseWriter // for its header
	status              int
	body                bytes.Buffer
}

func (a *answer) WriteHeader(status int) { a.status = status }

func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
