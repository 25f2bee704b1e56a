package admin

import (
	"net/http"
	"strings"
	"testing"
)

func TestProfiles(t *testing.T) {
	node := &fakeNode{}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace"} {
		if code, _ := get(t, Handler(node, Options{}), path); code != http.StatusNotFound {
			t.Errorf("%s is %d, want 404 unless profiles are asked for", path, code)
		}
	}
	with := Handler(node, Options{Pprof: true})
	for path, want := range map[string]string{"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "TestProfiles"} {
		if code, body := get(t, with, path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s is %d, without %q", path, code, want)
		}
	}
}
