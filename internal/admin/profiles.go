package admin

import (
	"net/http"
	"net/http/pprof"
)

// addProfiles adds the profiles of net/http/pprof. They are for operators alone: they name
// functions and goroutines, though no data, and a CPU profile slows the node down while it runs.
// They do not wait for their turn as other requests do, because a CPU profile takes half a minute.
func addProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // it serves the named ones, too
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
}
