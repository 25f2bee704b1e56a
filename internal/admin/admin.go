// Package admin answers HTTP requests about a node: does it live, does it accept clients, and what
// do its counters say? Operators ask it about all nodes, and give orders (see [API]).
//
//	/healthz  200 while the process answers; "ok", or "degraded" and a line for each thing the node does without
//	/readyz   200 while the node accepts clients; 503 before it is ready, while it drains, and while an event loop is stalled
//	/metrics  Prometheus
//	/api/v1/  questions and orders, as JSON
//	/         a page that shows the cluster (see internal/dashboard)
//
// On request, it has the profiles of net/http/pprof, too.
package admin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"distmsg/engine"
	"distmsg/internal/cli"
	"distmsg/internal/dashboard"
	"distmsg/internal/identity"
)

// Node is the part of an *engine.Engine that admin uses.
type Node interface {
	Ready() <-chan struct{}
	Draining() bool
	Stats() engine.Stats
	LoopSilence() time.Duration
	Health() []string
}

var _ Node = (*engine.Engine)(nil)

// Options are what a handler shows besides the node itself. The zero value adds nothing.
type Options struct {
	// Troubles return problems of what the node depends on. They belong to the node's health.
	Troubles []func() []string
	// Logins counts logins. Nil means that clients need not log in.
	Logins func() []identity.Count
	// Pprof adds the profiles of the Go runtime, at /debug/pprof/.
	Pprof bool
}

// Handler returns a handler for node, with a metrics registry of its own.
func Handler(node Node, o Options) http.Handler {
	health := func() []string {
		troubles := node.Health()
		for _, other := range o.Troubles {
			troubles = append(troubles, other()...)
		}
		return troubles
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(node.Stats),
		newDegraded(health),
		newLogins(o.Logins),
		newBuildInfo(cli.ReadBuild()),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	mux := http.NewServeMux()
	if o.Pprof {
		addProfiles(mux)
	}
	metrics, probes := newPace(), newPace()
	mux.Handle("GET /metrics", metrics.of(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	mux.Handle("GET /healthz", probes.of(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		troubles := health()
		if len(troubles) == 0 {
			fmt.Fprintln(w, "ok")
			return
		}
		fmt.Fprintln(w, "degraded\n"+strings.Join(troubles, "\n"))
	})))
	mux.Handle("GET /readyz", probes.of(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		silence := node.LoopSilence()
		switch {
		case !isReady(node):
			http.Error(w, "starting", http.StatusServiceUnavailable)
		case node.Draining():
			http.Error(w, "draining", http.StatusServiceUnavailable)
		case silence > silentFor:
			http.Error(w, "an event loop has not run for "+silence.Round(time.Second).String(), http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, "ok")
		}
	})))
	return mux
}

// silentFor is how long an event loop may be silent before the node counts as not ready, because
// its clients would wait.
const silentFor = time.Second

func isReady(node Node) bool {
	select {
	case <-node.Ready():
		return true
	default:
		return false
	}
}

// Server answers requests of operators and of Prometheus. It stays available even under attack.
type Server struct {
	Handler http.Handler
	// API answers below /api/v1/, and the page at / shows what it says. Nil: there is neither.
	API *API
	// TLS makes it a server for HTTPS. Nil: HTTP.
	TLS *tls.Config
	// Hosts are names that a request may have in its Host header, besides localhost and IP
	// addresses. If there are none, a server that listens on a loopback address refuses all other
	// names, and any other server accepts every name.
	Hosts []string
	// MaxConns is the maximum number of connections. If there is one more, the server closes the
	// one that has waited longest for a request, or else the one whose answer has been unread
	// longest. Default: 64.
	MaxConns int
	// Logger receives the HTTP server's log.
	Logger *slog.Logger
}

// defaultMaxConns is Server.MaxConns if that is 0.
const defaultMaxConns = 64

// Serve answers requests on l until ctx ends, and closes l. Its error is the server's own failure,
// never ctx's end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	conns := newConnLimit(cmp.Or(s.MaxConns, defaultMaxConns))
	mux := http.NewServeMux()
	mux.Handle("/", s.Handler)
	if s.API != nil {
		mux.Handle(apiPrefix, s.API.at(l.Addr()))
		page := ofHere(dashboard.Page())
		mux.Handle("GET /{$}", page)
		mux.Handle("GET /page/", page)
	}
	if s.TLS != nil {
		l = tls.NewListener(l, s.TLS)
	}
	server := &http.Server{
		Handler:           conns.serving(checkHost(mux, l.Addr(), s.Hosts)),
		ConnContext:       conns.opened,
		ConnState:         conns.changed,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
