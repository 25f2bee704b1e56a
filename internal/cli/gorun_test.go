package cli

import (
	"strings"
	"testing"
)

// TestBuiltByGoRun knows the programs of go run, fresh ones and those from go's cache.
func TestBuiltByGoRun(t *testing.T) {
	hash := strings.Repeat("9a", 32)
	for exe, want := range map[string]bool{
		"/tmp/go-build123/b001/exe/cluster":                 true,
		"/home/a/.cache/go-build/9a/" + hash + "-d/cluster": true,
		"/usr/local/bin/cluster":                            false,
		"/opt/exe/cluster":                                  false,
		"/opt/1.2-d/cluster":                                false,
		"/opt/" + hash + "/cluster":                         false,
	} {
		if got := builtByGoRun(exe); got != want {
			t.Errorf("%s: %v", exe, got)
		}
	}
}
