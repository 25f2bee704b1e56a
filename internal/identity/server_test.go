package identity

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"distmsg/internal/certs/certstest"
)

// fakeServer is an HTTP server that does what the test says.
type fakeServer struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	handler  http.HandlerFunc
}

func newFakeServer(t *testing.T) *fakeServer {
	s := &fakeServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mu.Lock()
		handler := s.handler
		s.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *fakeServer) does(handler http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = handler
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}

func redirects(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
}

// hangs answers nothing, until whoever asked goes away. The server sees that once the request has
// been read.
func hangs(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// hangsInside sends the beginning of an answer.
func hangsInside(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Write([]byte(`{"name":`))
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// hangsUp closes the connection without an answer.
func hangsUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// huge is a valid beginning that does not end.
func huge(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Write([]byte(`{"name":"`))
	for line := []byte(strings.Repeat("x", 1<<10)); r.Context().Err() == nil; {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

func TestURLs(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://example.com/auth":         true,
		"http://127.0.0.1:8000/":           true,
		"http://[::1]:8000/":               true,
		"http://localhost/":                true,
		"http://example.com/":              false,
		"http://10.0.0.1/":                 false,
		"http://127.0.0.1.example.com/":    false,
		"http://localhost.example.com/":    false,
		"https://user:secret@example.com/": false,
		"http://127.0.0.1@example.com/":    false,
		"ftp://example.com/":               false,
		"example.com":                      false,
		"https://":                         false,
		"https://example.com/%zz":          false,
	} {
		err := checkURL(url)
		if (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error quotes it: %v", url, err)
		}
	}
}

// newTLSServer returns a server whose certificate ca has signed.
func newTLSServer(t *testing.T, ca *certstest.CA, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, certstest.Request{}).TLS}}
	s.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}
