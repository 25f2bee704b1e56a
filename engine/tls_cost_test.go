//go:build !race

package engine

import (
	"crypto/tls"
	"io"
	"runtime"
	"testing"

	"distmsg/codec"
)

// With TLS a record costs few allocations, on both ends together: crypto/tls makes one for each
// record that it reads. A message costs none.
func TestTLSAllocations(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server})
	from, to := n.joinTLS(s.client, "from"), n.joinTLS(s.client, "to")
	go io.Copy(io.Discard, to.nc)
	go io.Copy(io.Discard, from.nc)
	const perRecord, records = 50, 200 // fewer bytes than the credit
	var frames []byte
	for range perRecord {
		frames = codec.AppendSend(frames, &codec.Send{To: []byte("to"), From: []byte("from"), Payload: make([]byte, 128)})
	}
	run := func() {
		want := n.Stats().Written + perRecord*records
		for range records {
			from.write(frames)
		}
		n.eventually("all are written", func() bool { return n.Stats().Written >= want })
	}
	run() // buffers grow
	best := 100.0
	for range 3 { // what else goes on in this process only adds to it
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run()
		runtime.ReadMemStats(&after)
		best = min(best, float64(after.Mallocs-before.Mallocs)/records)
	}
	t.Logf("%.1f allocations per record of %d messages", best, perRecord)
	if best > 10 {
		t.Errorf("%.1f allocations per record of %d messages, want at most 10", best, perRecord)
	}
}

// BenchmarkIdleTLS measures the memory of an idle client with TLS, its session included. The node's
// side is all that is counted: the clients' connections are of the same process, and are measured
// alone before.
func BenchmarkIdleTLS(b *testing.B) {
	const clients = 200
	for _, secured := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "TLS"}[secured]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := secure(b)
				cfg := Config{}
				if secured {
					cfg.TLS = s.server
				}
				n := start(b, cfg)
				before := heapInUse()
				for range clients {
					c := n.dial()
					if secured {
						c.nc = tls.Client(c.nc, s.client)
					}
					c.hello(codec.Hello{})
					// what is left of the client is its socket
				}
				held := n.counters().MemoryHeld
				b.ReportMetric(float64(heapInUse()-before)/clients, "heap-B/client")
				b.ReportMetric(float64(held)/clients, "counted-B/client")
				n.finish()
			}
		})
	}
}
