package agents

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"distmsg/discovery"
	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// AgentConfig says how an agent serves. What is secret stays on its machine: a coordinator cannot
// name files there, and sends none.
type AgentConfig struct {
	Token           string      // what coordinators have to show; empty: nothing
	ListenTLS       *tls.Config // of the connections of coordinators; nil: none
	TLS             *tls.Config // of the connections to nodes; nil: none
	CredentialsFile string      // see loadtest.Config
	// Discover finds nodes at a URL. The agent calls end after the run.
	Discover func(ctx context.Context, url string) (m discovery.Membership, end func(), err error)
	Program  string                           // the program and its version
	Log      func(format string, args ...any) // what happens, a line each
}

// An Agent makes runs for coordinators, one at a time. Any goroutine may call its methods.
type Agent struct {
	cfg   AgentConfig
	clock clock
	mu    sync.Mutex
	now   *serving // guarded by mu: nil if there is no run
}

// serving is the run that an agent serves.
type serving struct {
	run   string
	from  string // the coordinator's address
	since time.Time
	start chan int64    // gets the moment of the start, on the agent's clock
	until chan struct{} // closed when the measured time is to end
	ended sync.Once     // closes until
	cut   context.CancelCauseFunc
}

var errInterrupted = errors.New("interrupted")

// NewAgent makes an agent.
func NewAgent(cfg AgentConfig) *Agent { return &Agent{cfg: cfg, clock: newClock()} }

// Serve serves coordinators until ctx ends. A run that goes on then fails, and its coordinator
// hears why. Serve closes ln.
func (a *Agent) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{Handler: a, ReadHeaderTimeout: answerWithin, IdleTimeout: time.Minute, ErrorLog: log.New(a, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx }}
	if a.cfg.ListenTLS != nil {
		ln = tls.NewListener(ln, a.cfg.ListenTLS)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	err := server.Shutdown(last)
	if err != nil {
		err = errors.Join(fmt.Errorf("a run did not end: %w", err), server.Close())
	}
	<-ended
	return err
}

// Write logs a line of package http, such as a TLS handshake that failed.
func (a *Agent) Write(line []byte) (int, error) {
	a.cfg.Log("%s", bytes.TrimSpace(line))
	return len(line), nil
}

// ServeHTTP serves one request of a coordinator.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	// A page in a browser on this machine could otherwise start a load.
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		http.Error(w, "an agent does not serve browsers", http.StatusForbidden)
		return
	case !a.admits(r):
		a.cfg.Log("refused a coordinator at %s, which does not know the token", r.RemoteAddr)
		http.Error(w, "it wants the token of its --token-file", http.StatusUnauthorized)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET " + pathHello:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(hello{Version: version, Schema: result.Schema, Program: a.cfg.Program, Clock: a.clock.now().UnixNano()})
	case "POST " + pathRun:
		a.serveRun(w, r)
	case "POST " + pathStart, "POST " + pathStop:
		a.serveOrder(w, r)
	default:
		http.NotFound(w, r)
	}
}

// admits reports whether a request shows the token. The comparison takes the same time for all.
func (a *Agent) admits(r *http.Request) bool {
	if a.cfg.Token == "" {
		return true
	}
	shown, want := sha256.Sum256([]byte(r.Header.Get("Authorization"))), sha256.Sum256([]byte(bearer(a.cfg.Token)))
	return subtle.ConstantTimeCompare(shown[:], want[:]) == 1
}

func bearer(token string) string { return "Bearer " + token }

// serveOrder hands an order to the run.
func (a *Agent) serveOrder(w http.ResponseWriter, r *http.Request) {
	var o order
	if !read(w, r, &o) {
		return
	}
	a.mu.Lock()
	s := a.now
	a.mu.Unlock()
	switch {
	case s == nil || s.run != o.Run:
		http.Error(w, "it does not serve this run any more", http.StatusConflict)
	case r.URL.Path == pathStart:
		select {
		case s.start <- o.At:
		default:
			http.Error(w, "the run has started already", http.StatusConflict)
		}
	case o.Interrupt:
		s.cut(errInterrupted)
	default:
		s.ended.Do(func() { close(s.until) })
	}
}

// read reads a request. If it cannot, it answers and returns false.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	body := http.MaxBytesReader(w, r.Body, maxJob)
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(v)
	if err == nil {
		_, err = io.Copy(io.Discard, body) // then the server notices when the client has gone
	}
	if err != nil {
		http.Error(w, "it does not understand the request, which may be of another version: "+err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

// serveRun makes a run. The answer is a stream of events. The run ends if nobody reads them.
func (a *Agent) serveRun(w http.ResponseWriter, r *http.Request) {
	var j job
	if !read(w, r, &j) {
		return
	}
	if j.Version != version {
		http.Error(w, fmt.Sprintf("it speaks version %d of the agents' protocol, the coordinator %d", version, j.Version), http.StatusBadRequest)
		return
	}
	ctx, cut := context.WithCancelCause(r.Context())
	defer cut(nil)
	s := &serving{run: j.Run, from: r.RemoteAddr, since: time.Now(), start: make(chan int64, 1), until: make(chan struct{}), cut: cut}
	if busy := a.begin(s); busy != nil {
		http.Error(w, fmt.Sprintf("it serves one run at a time, and is busy with one for %s since %s", busy.from,
			time.Since(busy.since).Round(time.Second)), http.StatusConflict)
		return
	}
	defer a.end(s)
	a.cfg.Log("run for %s: %d connections", s.from, j.Load.Conns)
	out := newStream(w, cut)
	beating := out.beat(ctx)
	last := a.make(ctx, s, &j, out)
	cut(nil)
	<-beating
	if last.Report != nil {
		a.cfg.Log("run for %s: sent %d, delivered %d, faults %d", s.from, last.Report.Sent, last.Report.Delivered, last.Report.Faults.Total())
	} else {
		a.cfg.Log("run for %s failed: %s", s.from, last.Failed)
	}
	a.end(s) // the coordinator may begin another one as soon as it has the result
	out.send(last)
}

// begin makes s the run that the agent serves. If there is another one, begin returns that.
func (a *Agent) begin(s *serving) (busy *serving) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now != nil {
		return a.now
	}
	a.now = s
	return nil
}

func (a *Agent) end(s *serving) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now == s {
		a.now = nil
	}
}

// make makes the run of a job and returns its last event.
func (a *Agent) make(ctx context.Context, s *serving, j *job, out *stream) *event {
	cfg := j.Load.Config
	cfg.TLS, cfg.CredentialsFile, cfg.Until, cfg.ServerPID = a.cfg.TLS, a.cfg.CredentialsFile, s.until, 0
	if j.Discovery != "" {
		if a.cfg.Discover == nil {
			return &event{Failed: "it does not support discovery", Usage: true}
		}
		m, end, err := a.cfg.Discover(ctx, j.Discovery)
		if err != nil {
			return &event{Failed: err.Error()}
		}
		defer end()
		cfg.Membership = m
	}
	if len(cfg.Nodes) == 0 && cfg.Membership == nil {
		return &event{Failed: "it got no address of a node", Usage: true}
	}
	var late time.Duration
	ready := func(ctx context.Context) (err error) {
		out.send(&event{Ready: true})
		late, err = a.waitForStart(ctx, s)
		return err
	}
	cfg.Observe = func(p *loadtest.Sample) {
		if s, err := encodeSample(p); err != nil {
			out.fail(err)
		} else {
			out.send(&event{Sample: s})
		}
	}
	report, err := loadtest.RunWhenReady(ctx, cfg, ready)
	switch cause := context.Cause(ctx); {
	case cause != nil && !errors.Is(cause, errInterrupted):
		return &event{Failed: fmt.Sprintf("it was stopped, or lost its coordinator (%v)", cause)}
	case err != nil:
		text := strings.ReplaceAll(err.Error(), loadtest.ErrUsage.Error()+": ", "")
		return &event{Failed: text, Usage: errors.Is(err, loadtest.ErrUsage)}
	}
	report.Timeline = nil // the coordinator has the samples
	return &event{Report: report, Late: int64(late)}
}

// waitForStart returns at the moment that the coordinator orders, and how late that is.
func (a *Agent) waitForStart(ctx context.Context, s *serving) (late time.Duration, err error) {
	var at time.Time
	select {
	case ns := <-s.start:
		at = time.Unix(0, ns)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	timer := time.NewTimer(at.Sub(a.clock.now()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return a.clock.now().Sub(at), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
