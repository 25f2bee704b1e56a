package engine

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests, or the program that one of them needs: see limited_test.go.
func TestMain(m *testing.M) {
	if os.Getenv(limitedEnv) != "" {
		limitedNode()
		return
	}
	flag.Parse()
	// Those that call Parallel wait for a timeout, so there may be more of them than CPUs.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	// gnet starts the goroutines of its worker pool when it is imported
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}
