package engine

import (
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

// While the registry is away, clients that come and go do not fill the log.
func TestEndsThatFailAreLoggedSeldom(t *testing.T) {
	var log notes
	reg := newLossy()
	n := start(t, Config{Registry: reg, Logger: log.logger()})
	reg.deaf.Store(true)
	began := time.Now()
	for range 50 {
		c := n.join()
		c.write(codec.AppendBye(nil))
		c.ends()
	}
	n.eventually("all have ended", func() bool { return n.Stats().Sessions == 0 })
	log.has(n, "cannot end a session")
	n.log.Flush(patience)
	log.mu.Lock()
	lines := strings.Count(log.b.String(), "cannot end a session")
	log.mu.Unlock()
	if most := 2 + int(time.Since(began)/time.Second); lines > most {
		t.Errorf("%d lines, at most %d", lines, most)
	}
	reg.deaf.Store(false)
}
