package loadtest

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"distmsg/internal/proc"
	"distmsg/loadtest/floor"
	"distmsg/loadtest/internal/natstest"
)

// listen returns a listener on a free port. serve runs until it is closed, at the end of the test.
func listen(t *testing.T, serve func(net.Listener)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(ln)
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return ln.Addr().String()
}

// startBroker starts a NATS server.
func startBroker(t *testing.T, secure *tls.Config) (addr string) {
	return listen(t, func(ln net.Listener) { natstest.Serve(ln, secure) })
}

func TestNATSDriver(t *testing.T) {
	long(t)
	t.Parallel()
	server, client := tlsEnds(t)
	tryDriver(t, DriverNATS, startBroker(t, nil), nil)
	tryDriver(t, DriverNATS, startBroker(t, server), client)
	_, err := Run(t.Context(), Config{Driver: DriverNATS, Nodes: []string{startBroker(t, server)}})
	if err == nil || !strings.Contains(err.Error(), "add --tls") {
		t.Errorf("without TLS at a server that wants it: %v", err)
	}
}

func TestRedisDriver(t *testing.T) {
	long(t)
	t.Parallel()
	server, err := proc.StartRedis(t.Context(), proc.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	tryDriver(t, DriverRedis, server.Addr, nil)
}

func TestFloorDriver(t *testing.T) {
	long(t)
	t.Parallel()
	addr := listen(t, func(ln net.Listener) { _ = floor.Serve(t.Context(), ln) })
	tryDriver(t, DriverFloor, addr, nil)
}

// tryDriver makes a run with acks, one without, and one with messages to all others. All messages
// must arrive.
func tryDriver(t *testing.T, driver Driver, addr string, secure *tls.Config) {
	t.Helper()
	for _, noAck := range []bool{false, true} {
		cfg := quick
		cfg.Driver, cfg.Nodes, cfg.NoAck, cfg.IDsPerConn, cfg.TLS = driver, []string{addr}, noAck, 3, secure
		cfg.Duration = 300 * time.Millisecond
		r := mustRun(t, cfg)
		checkClean(t, r)
		if r.Sent == 0 || r.Sent != r.Delivered || r.Acked != map[bool]uint64{false: r.Sent}[noAck] {
			t.Errorf("%d sent, %d delivered, %d acked", r.Sent, r.Delivered, r.Acked)
		}
	}
	cfg := quick
	cfg.Driver, cfg.Nodes, cfg.NoAck, cfg.TLS, cfg.Duration = driver, []string{addr}, true, secure, 100*time.Millisecond
	cfg.Conns, cfg.Fanout = 5, 4
	r := mustRun(t, cfg)
	checkClean(t, r)
	if r.Sent == 0 || r.Sent%4 != 0 || r.Sent != r.Delivered {
		t.Errorf("to all others: %d sent, %d delivered", r.Sent, r.Delivered)
	}
}
