package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// connectionsPart is the divisor of --memory-budget that yields what connections may hold. The rest
// is for the tables of IDs and sessions, and for memory that the garbage collector has not freed
// yet.
const connectionsPart = 2

// byteSize is a flag: a number of bytes, with or without a unit.
type byteSize int64

var _ pflag.Value = (*byteSize)(nil)

// The units that the Go runtime accepts in GOMEMLIMIT.
var units = []struct {
	name  string
	bytes int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}

// Set reads a size such as 512MiB.
func (b *byteSize) Set(text string) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n <= 0 || n > 1<<62/u.bytes {
			break
		}
		*b = byteSize(n * u.bytes)
		return nil
	}
	return fmt.Errorf("want a number of bytes over 0 with B, KiB, MiB, GiB or TiB, as in 512MiB")
}

// String returns the size in the largest unit that leaves no remainder. It is empty for 0.
func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	for _, u := range []int{3, 2, 1, 0} {
		if int64(*b)%units[u].bytes == 0 {
			return strconv.FormatInt(int64(*b)/units[u].bytes, 10) + units[u].name
		}
	}
	return strconv.FormatInt(int64(*b), 10) + "B"
}

// Type is the name of the type in the help text.
func (b *byteSize) Type() string { return "size" }

// limitMemory makes the runtime collect garbage earlier when the process approaches its budget,
// unless the environment sets the limit. It returns the limit in the form of GOMEMLIMIT.
func limitMemory(connections int) string {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(connectionsPart * int64(connections))
	}
	limit := byteSize(debug.SetMemoryLimit(-1))
	return limit.String()
}
