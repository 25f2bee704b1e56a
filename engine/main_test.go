package engine

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests, or one of the other programs that they need: see limited_test.go.
func TestMain(m *testing.M) {
	if os.Getenv(limitedEnv) != "" {
		limitedNode()
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) // gnet starts the goroutines of its worker pool when it is imported
}
